"""The still figures: each function takes arrays that were computed elsewhere and returns a Figure."""

import matplotlib.colors
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from hamjepa_jax.physics import canvas
from hamjepa_jax.physics.systems import System

METHOD_COLOUR = {"euler": canvas.VERMILLION, "leapfrog": canvas.BLUE, "reference": canvas.BLACK}
METHOD_LABEL = {"euler": "explicit Euler", "leapfrog": "leapfrog", "reference": "reference"}
METHOD_LINE = {"euler": "--", "leapfrog": "-", "reference": ":"}
P_LABEL = "momentum p (dimensionless)"
TIME_LABEL = "time (dimensionless)"


def energy_drift_map(system: System, drift: dict[str, np.ndarray]) -> Figure:
    """Relative energy drift over the window: {method: [n, n]}, nan where masked, one colour scale for all."""
    finite = np.concatenate([np.abs(d[np.isfinite(d)]) for d in drift.values()])
    limit = min(10.0 ** np.ceil(np.log10(finite.max())), 1e4)
    norm = matplotlib.colors.SymLogNorm(linthresh=1e-4, vmin=-limit, vmax=limit, linscale=0.6)
    figure, axes = canvas.new_figure(8.2, 3.6, 1, len(drift), sharex=True, sharey=True)
    for axis, (method, values) in zip(axes, drift.items(), strict=True):
        image = _window_image(axis, system, values, norm, canvas.DIVERGING)
        axis.set_title(METHOD_LABEL[method])
    axes[0].set_ylabel(P_LABEL.replace("p ", "$p_0$ "))
    bar = figure.colorbar(image, ax=axes, extend="max" if finite.max() > limit else "neither", pad=0.02)
    bar.set_label(f"$(H_T-H_0)/H_0$ at T = {system.duration:g}")
    decades = np.arange(-3, np.log10(limit) + 0.5)
    bar.set_ticks(np.concatenate([-(10.0 ** decades[::-1]), [0.0], 10.0**decades]))
    bar.ax.minorticks_off()
    figure.suptitle(f"{system.title}, {system.formula}: relative energy drift by start")
    return figure


def return_error_map(system: System, errors: dict[str, np.ndarray]) -> Figure:
    """Distance from the start after going forward and back: {method: [n, n]}, one logarithmic scale for all."""
    finite = np.concatenate([e[np.isfinite(e)] for e in errors.values()])
    high = min(10.0 ** np.ceil(np.log10(finite.max())), 1e4)
    norm = matplotlib.colors.LogNorm(1e-16, high, clip=True)
    figure, axes = canvas.new_figure(8.2, 3.6, 1, len(errors), sharex=True, sharey=True)
    for axis, (method, values) in zip(axes, errors.items(), strict=True):
        values = np.where(np.isfinite(values), np.maximum(values, 1e-16), high)
        image = _window_image(axis, system, values, norm, canvas.SEQUENTIAL)
        axis.set_title(METHOD_LABEL[method])
    axes[0].set_ylabel(P_LABEL.replace("p ", "$p_0$ "))
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(r"$\|z_{\mathrm{returned}}-z_0\|_2$ (phase-space units)")
    figure.suptitle(f"{system.title}: {system.num_steps} steps forward, {system.num_steps} back with −Δt")
    return figure


def _window_image(axis, system, values, norm, colours):
    extent = (-system.q_max, system.q_max, -system.p_max, system.p_max)
    image = axis.imshow(
        values.T, origin="lower", extent=extent, aspect="auto", norm=norm, cmap=canvas.colour_map(colours)
    )
    axis.set_xlabel(system.q_label.replace(" q ", " $q_0$ "))
    axis.spines[:].set_visible(True)
    return image


def liouville(
    system: System, ratio: dict[str, np.ndarray], before: np.ndarray, after: dict[str, np.ndarray]
) -> Figure:
    """Area of a grid of starts along the rollout, and the grid before and after.

    Args:
      system: the system.
      ratio: {method: [t]} area over the first area.
      before: [2, m, m] the grid of starts (q, p).
      after: {method: [2, m, m]} the same grid carried along, q not wrapped.
    """
    figure, axes = canvas.new_figure(10.2, 3.4, 1, 1 + len(after), width_ratios=[1.1] + [1] * len(after))
    for method, values in ratio.items():
        times = system.step_size * np.arange(len(values))
        axes[0].plot(
            times,
            values,
            METHOD_LINE[method],
            color=METHOD_COLOUR[method],
            label=f"{METHOD_LABEL[method]}: {values[-1]:.5g} at the end",
        )
    axes[0].axhline(1.0, color=canvas.GREY, linewidth=0.8, zorder=0)
    axes[0].set(xlabel=TIME_LABEL, ylabel="grid area / first grid area", yscale="log", title="area carried along")
    axes[0].legend(loc="upper left")
    low, high = axes[0].get_ylim()
    ticks = [t for t in (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 50, 100) if low < t < high]
    axes[0].set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes[0].minorticks_off()
    for axis, (method, grid) in zip(axes[1:], after.items(), strict=True):
        _draw_grid(axis, before, canvas.GREY)
        _draw_grid(axis, grid, METHOD_COLOUR[method])
        axis.autoscale_view()
        axis.set(xlabel=system.q_label, title=f"{METHOD_LABEL[method]}: before (grey) and after")
        axis.margins(0.08)
    axes[1].set_ylabel(P_LABEL)
    figure.suptitle(f"{system.title}: phase-space area (Liouville), {system.num_steps} steps")
    return figure


def _draw_grid(axis, grid, colour):
    lines = np.stack(grid, axis=-1)[:, ::2], np.stack(grid, axis=-1)[::2]
    both_ways = [*np.swapaxes(lines[0], 0, 1), *lines[1]]
    axis.add_collection(LineCollection(both_ways, colors=colour, linewidths=0.5))


def symplectic_defect_histogram(system: System, defects: dict[str, np.ndarray]) -> Figure:
    """Histogram of the one-step symplecticity defect over starts: {method: [n]}; exact zeros stand at 1e-18."""
    figure, axis = canvas.new_figure(6.0, 3.4)
    bins = np.geomspace(1e-18, 10.0 ** np.ceil(np.log10(max(d.max() for d in defects.values()))), 70)
    for method, values in defects.items():
        zeros = float((values == 0).mean())
        label = METHOD_LABEL[method] + (f" ({zeros:.0%} exactly 0, drawn at 1e−18)" if zeros else "")
        shares = np.full(len(values), 100.0 / len(values))
        axis.hist(np.maximum(values, 1.01e-18), bins, weights=shares, color=METHOD_COLOUR[method], label=label)
    axis.axvline(np.finfo(np.float64).eps, color=canvas.GREY, linewidth=0.8)
    axis.annotate(
        "float64 roundoff 2.2e−16",
        (np.finfo(np.float64).eps, 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        color=canvas.GREY,
        fontsize=8,
        va="top",
    )
    axis.set(
        xscale="log",
        xlabel=r"$\|J^{\mathrm{T}}\Omega J-\Omega\|_F$ of one step (dimensionless)",
        ylabel="share of starts (%)",
    )
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0.88))
    figure.suptitle(f"{system.title}: symplecticity defect of one step, float64, {len(values)} starts")
    return figure


def energy_drift_bands(system: System, bands: dict[str, np.ndarray], num_starts: int) -> Figure:
    """Median and interquartile band of the relative energy drift against time: {method: [3, t]}."""
    figure, axis = canvas.new_figure(6.0, 3.4)
    for method, (low, median, high) in bands.items():
        times = system.step_size * np.arange(len(median))
        colour = METHOD_COLOUR[method]
        axis.fill_between(times[1:], low[1:], high[1:], color=colour, alpha=0.25, linewidth=0)
        axis.plot(times[1:], median[1:], METHOD_LINE[method], color=colour, label=METHOD_LABEL[method])
    axis.set(yscale="log", xlabel=TIME_LABEL, ylabel=r"$|H_t-H_0|\,/\,H_0$")
    axis.legend(loc="center right", title="median, quartiles shaded")
    figure.suptitle(f"{system.title}: energy drift over {num_starts} starts")
    return figure


def covariance_along_rollout(system: System, statistics: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Trace, log-determinant and smallest eigenvalue of a cloud's covariance: {method: {statistic: [t]}}."""
    panels = {
        "trace": (r"$\mathrm{tr}\,\Sigma$", "log"),
        "logdet": (r"$\log\det\Sigma$ (nats)", "linear"),
        "lambda_min": (r"$\lambda_{\min}(\Sigma)$", "linear"),
    }
    figure, axes = canvas.new_figure(9.6, 3.2, 1, 3, sharex=True)
    for axis, (key, (label, scale)) in zip(axes, panels.items(), strict=True):
        for method, values in statistics.items():
            times = np.linspace(0.0, system.duration, len(values[key]))
            label_of = METHOD_LABEL[method] + (" (Δt/10)" if method == "reference" else "")
            axis.plot(times, values[key], METHOD_LINE[method], color=METHOD_COLOUR[method], label=label_of)
        axis.set(xlabel=TIME_LABEL, ylabel=label, yscale=scale)
        axis.margins(y=0.1)
    axes[0].legend(loc="upper left")
    figure.suptitle(f"{system.title}: covariance of the cloud of starts along the rollout")
    return figure


def sliced_discrepancy(system: System, angles: np.ndarray, distances: dict[str, np.ndarray]) -> Figure:
    """W1 to the reference cloud against the projection's angle: {method: [m]}, angles [m] in radians."""
    figure, axis = canvas.new_figure(6.0, 3.4)
    for method, values in distances.items():
        label = f"{METHOD_LABEL[method]}: mean {values.mean():.3g}, max {values.max():.3g}"
        axis.plot(np.degrees(angles), values, METHOD_LINE[method], color=METHOD_COLOUR[method], label=label)
    axis.set(
        yscale="log",
        xlabel="direction of the projection (degrees; 0 is q, 90 is p)",
        ylabel="$W_1$ to the reference (phase-space units)",
        xticks=np.arange(0, 181, 30),
    )
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * 6)
    axis.legend(loc="upper right")
    figure.suptitle(f"{system.title}: sliced discrepancy at T = {system.duration:g}")
    return figure


def projection_sketch(system: System, clouds: dict[str, np.ndarray], angle: float) -> Figure:
    """One slice of the discrepancy: the clouds with a direction, and their projections' distribution functions.

    Args:
      system: the system.
      clouds: {method: [n, 2]} with "reference" among the methods; q not wrapped.
      angle: of the direction, in radians.
    """
    direction = np.array([np.cos(angle), np.sin(angle)])
    methods = [m for m in clouds if m != "reference"]
    figure, axes = canvas.new_figure(10.2, 3.4, 1, 1 + len(methods))
    for method in [*methods, "reference"]:
        marker = dict(euler="x", leapfrog="o", reference=".")[method]
        q, p = clouds[method].T
        axes[0].scatter(q, p, s=9, marker=marker, linewidths=0.7, color=METHOD_COLOUR[method], alpha=0.7,
                        label=METHOD_LABEL[method])  # fmt: skip
    axes[0].set(xlabel=system.q_label, ylabel=P_LABEL, title="clouds at the end")
    axes[0].axline((0, 0), slope=np.tan(angle), color=canvas.GREY, linewidth=1)
    axes[0].legend(loc="best", handletextpad=0.1)
    reference = np.sort(clouds["reference"] @ direction)
    levels = (np.arange(len(reference)) + 0.5) / len(reference)
    for axis, method in zip(axes[1:], methods, strict=True):
        projected = np.sort(clouds[method] @ direction)
        axis.fill_betweenx(levels, reference, projected, color=METHOD_COLOUR[method], alpha=0.3, linewidth=0)
        axis.plot(reference, levels, color=METHOD_COLOUR["reference"], linewidth=1.2, label="reference")
        axis.plot(projected, levels, "--", color=METHOD_COLOUR[method], linewidth=1.2, label=METHOD_LABEL[method])
        distance = np.abs(projected - reference).mean()
        axis.set(
            xlabel=f"projection on the {np.degrees(angle):g}° direction",
            ylabel="share of the cloud below",
            title=f"shaded area: $W_1$ = {distance:.3g}",
        )
        axis.legend(loc="upper left")
    figure.suptitle(f"{system.title}: one slice of the sliced discrepancy")
    return figure
