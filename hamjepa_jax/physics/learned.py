"""The same diagnostics for a trained flow of phase space: energy, reversal, symplecticity, volume, spectrum."""

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hamjepa_jax import files
from hamjepa_jax.dynamics.structure import Flow
from hamjepa_jax.physics import canvas

Array = jax.Array
FLOW, COMPARISON = "learned flow", "comparison (MLP)"
COLOUR = {FLOW: canvas.BLUE, COMPARISON: canvas.VERMILLION}
LINE = {FLOW: "-", COMPARISON: "--"}


def learned_flow_measurements(
    flow: Flow, energy: Callable[[Array], Array], states: Array, *, num_applications: int, num_jacobians: int
) -> dict[str, np.ndarray]:
    """Measures how far a flow is from conserving energy, reversing in time, and being symplectic.

    Args:
      flow: flow(z, direction) -> z on states [n, 2d] and on one state [2d], direction ±1.
      energy: energy(z) -> [n], the energy whose drift is measured.
      states: [n, 2d], for example encodings of held-out images; their dtype sets the precision of the flow.
      num_applications: how often the flow is applied in a row for the energy's drift.
      num_jacobians: on how many of the states (the first ones) Jacobians are taken; each costs 2d forward passes
        and a singular value decomposition of a [2d, 2d] matrix.

    Returns:
      "energy_drift" [num_applications + 1, n]: (H_k − H_0)/|H_0|. "reversal_error" [n]: ‖flow(flow(z, 1), −1) − z‖
      over ‖z‖. For m = min(n, num_jacobians) states, J = D flow(z, 1), linear algebra in float64:
      "symplectic_defect" [m]: ‖JᵀΩJ − Ω‖_F. "log_abs_det" [m]: log|det J|. "singular_values" [m, 2d], descending.

    Raises:
      ValueError: if states is not [n, 2d].
    """
    states = jnp.asarray(states)
    if states.ndim != 2 or states.shape[1] % 2 or not states.size:
        raise ValueError(f"expected phase-space states [n, 2d], got shape {states.shape}.")

    @jax.jit
    def along(z):
        def advance(z, _):
            z = flow(z, 1)
            return z, energy(z)

        returned = jnp.linalg.norm(flow(flow(z, 1), -1) - z, axis=-1) / jnp.linalg.norm(z, axis=-1)
        return energy(z), jax.lax.scan(advance, z, length=num_applications)[1], returned

    first, later, reversal_error = (np.asarray(x, np.float64) for x in along(states))
    drift = (np.concatenate([first[None], later]) - first) / np.abs(first)
    jacobian = jax.jit(jax.jacfwd(lambda z: flow(z, 1)))
    structure = [_structure(np.asarray(jacobian(z), np.float64)) for z in states[:num_jacobians]]
    defects, log_dets, singular = (np.stack(x) for x in zip(*structure, strict=True))
    return {
        "energy_drift": drift,
        "reversal_error": reversal_error,
        "symplectic_defect": defects,
        "log_abs_det": log_dets,
        "singular_values": singular,
    }


def _structure(j: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # One Jacobian for all three: at 2d = 2048 it is too expensive for `dynamics`' one a measurement.
    d = len(j) // 2
    pulled_back = j.T @ np.concatenate([j[d:], -j[:d]])
    omega = np.block([[np.zeros((d, d)), np.eye(d)], [-np.eye(d), np.zeros((d, d))]])
    return (
        np.linalg.norm(pulled_back - omega),
        np.linalg.slogdet(j)[1],
        np.linalg.svd(j, compute_uv=False),
    )


def learned_flow_figures(
    flow: Flow,
    energy: Callable[[Array], Array],
    states: Array,
    out: str | pathlib.Path,
    *,
    comparison: Flow | None = None,
    comparison_states: Array | None = None,
    num_applications: int = 50,
    num_jacobians: int = 8,
) -> dict[str, float]:
    """Draws the diagnostics of a trained flow, optionally against a second one (the MLP ablation).

    Args:
      flow: flow(z, direction) -> z on states [n, 2d] and on one state [2d], direction ±1.
      energy: energy(z) -> [n], the learned energy.
      states: [n, 2d] states to measure at, for example encodings of held-out images.
      out: folder for the figures (PNG and PDF), captions.md and numbers.json; made if missing.
      comparison: a flow to draw beside it, measured with the same energy.
      comparison_states: states for the comparison, when another encoder makes them; `states` otherwise.
      num_applications: see `learned_flow_measurements`.
      num_jacobians: see `learned_flow_measurements`.

    Returns:
      The numbers in numbers.json: for each flow the medians of the final energy drift and of the reversal error,
      the largest symplectic defect, the mean of |log|det J||, the largest pairing error |log σ_i + log σ_{2d+1−i}|.

    Raises:
      ValueError: if states are not [n, 2d].
      UserError: if `out` cannot be written to.
    """
    out = files.make_folder(out, "--out")
    sizes = dict(num_applications=num_applications, num_jacobians=num_jacobians)
    measured = {FLOW: learned_flow_measurements(flow, energy, states, **sizes)}
    if comparison is not None:
        at = states if comparison_states is None else comparison_states
        measured[COMPARISON] = learned_flow_measurements(comparison, energy, at, **sizes)
    numbers = {}
    for name, m in measured.items():
        log_singular = np.log(m["singular_values"])
        numbers |= {
            f"{name}/energy_drift_median": float(np.median(np.abs(m["energy_drift"][-1]))),
            f"{name}/reversal_error_median": float(np.median(m["reversal_error"])),
            f"{name}/symplectic_defect_largest": float(m["symplectic_defect"].max()),
            f"{name}/mean_abs_log_abs_det": float(np.abs(m["log_abs_det"]).mean()),
            f"{name}/pairing_error_largest": float(np.abs(log_singular + log_singular[:, ::-1]).max()),
        }
    captions = {
        "learned_energy_drift": f"Relative drift |H_k − H_0|/|H_0| of the learned energy when the flow is applied "
        f"{num_applications} times in a row: median and quartiles over {len(states)} states.",
        "learned_reversal": "Relative return error ‖flow(flow(z, +1), −1) − z‖/‖z‖ over the states, in the flow's "
        "own precision: roundoff for a reversible integrator; exact returns stand at 1e-18.",
        "learned_structure": f"Symplectic defect ‖JᵀΩJ − Ω‖_F and |log|det J|| of the flow's Jacobian at "
        f"{len(measured[FLOW]['log_abs_det'])} states; both vanish up to roundoff for a symplectic map.",
        "learned_spectrum": "Logarithms of the Jacobian's singular values, descending, at the first state (line), "
        "and the same list negated and reversed (dots). They coincide for a symplectic map, which pairs σ, 1/σ.",
    }
    with canvas.styled():
        canvas.save(_draw_drift(measured), out, "learned_energy_drift")
        canvas.save(_draw_reversal(measured), out, "learned_reversal")
        canvas.save(_draw_structure(measured), out, "learned_structure")
        canvas.save(_draw_spectrum(measured), out, "learned_spectrum")
    canvas.write_captions(out, "The learned flow", captions)
    files.write_json(out / "numbers.json", numbers)
    return numbers


def _draw_drift(measured):
    figure, axis = canvas.new_figure(6.0, 3.4)
    for name, m in measured.items():
        low, median, high = np.quantile(np.abs(m["energy_drift"][1:]), [0.25, 0.5, 0.75], axis=1)
        applications = np.arange(1, len(median) + 1)
        axis.fill_between(applications, low, high, color=COLOUR[name], alpha=0.25, linewidth=0)
        axis.plot(applications, median, LINE[name], color=COLOUR[name], label=name)
    axis.set(yscale="log", xlabel="applications of the flow", ylabel=r"$|H_k-H_0|\,/\,|H_0|$")
    axis.legend(loc="best", title="median, quartiles shaded")
    figure.suptitle("Drift of the learned energy")
    return figure


def _draw_reversal(measured):
    figure, axis = canvas.new_figure(6.0, 3.4)
    tiny = 1e-18  # an exact return has no logarithm
    errors = {name: np.maximum(m["reversal_error"], tiny) for name, m in measured.items()}
    low, high = min(e.min() for e in errors.values()), max(e.max() for e in errors.values())
    bins = np.geomspace(low / 2, high * 2, 50)
    for name, e in errors.items():
        axis.hist(e, bins, weights=np.full(len(e), 100.0 / len(e)), color=COLOUR[name], label=name, alpha=0.85)
    axis.set(
        xscale="log",
        xlabel=r"$\|\Phi^{-\Delta t}(\Phi^{\Delta t}(z))-z\|\,/\,\|z\|$ (dimensionless)",
        ylabel="share of states (%)",
    )
    axis.legend(loc="best")
    figure.suptitle("Time-reversal return error of the learned flow")
    return figure


def _draw_structure(measured):
    figure, axes = canvas.new_figure(7.2, 3.4, 1, 2)
    panels = {
        "symplectic_defect": r"$\|J^{\mathrm{T}}\Omega J-\Omega\|_F$ (dimensionless)",
        "log_abs_det": r"$|\log|\det J||$ (nats)",
    }
    for axis, (key, label) in zip(axes, panels.items(), strict=True):
        for i, (name, m) in enumerate(measured.items()):
            values = np.maximum(np.abs(m[key]), 1e-18)
            spread = np.linspace(-0.15, 0.15, len(values))
            axis.plot(i + spread, values, "o", markersize=4, color=COLOUR[name])
            axis.plot([i - 0.25, i + 0.25], [np.median(values)] * 2, color=canvas.BLACK, linewidth=1)
        axis.set(yscale="log", ylabel=label, xlim=(-0.6, len(measured) - 0.4))
        axis.set_xticks(range(len(measured)), list(measured))
        low, high = axis.get_ylim()
        axis.set_ylim(low / 3, high * 3)
    figure.suptitle("Structure of the learned flow's Jacobian (points: states; bar: median)")
    return figure


def _draw_spectrum(measured):
    figure, axis = canvas.new_figure(6.0, 3.4)
    for name, m in measured.items():
        values = np.log(m["singular_values"][0])
        ranks = np.arange(1, len(values) + 1)
        shown = slice(None, None, max(1, len(values) // 60))
        axis.plot(ranks, values, LINE[name], color=COLOUR[name], label=name)
        axis.plot(ranks[shown], -values[::-1][shown], "o", markersize=2.5, color=COLOUR[name], markeredgewidth=0)
    axis.axhline(0.0, color=canvas.GREY, linewidth=0.8, zorder=0)
    axis.set(xlabel="rank i", ylabel=r"$\log\sigma_i$ (nats)")
    axis.legend(loc="best", title=r"line: $\log\sigma_i$; dots: $-\log\sigma_{2d+1-i}$")
    figure.suptitle("Singular values of the learned flow's Jacobian")
    return figure
