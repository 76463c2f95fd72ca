"""Figures of a run: learning curve, training dynamics, and the four panels of a set of features."""

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hamjepa_jax import metrics
from hamjepa_jax.metrics import keys
from hamjepa_jax.report.axes import (
    COLOURS,
    READOUTS,
    finish,
    from_zero,
    grid,
    log_axis,
    log_ticks,
    save,
    say_empty,
    signed_log_axis,
)
from hamjepa_jax.report.logs import select, series
from hamjepa_jax.report.significance import spearman

_LOSS_TERMS = ("total", "pred", "budget", "var", "logdet", "mean", "sigreg", "energy", "cov", "spectral")


def learning_curve(history: Sequence[dict], path: str | os.PathLike) -> pathlib.Path | None:
    """Loss terms, signs of collapse and accuracy in the course of training; panels without data are left out.

    Args:
      history: records of a metrics.jsonl (see `logs.read_history`): "step", "epoch", training metrics "train/…"
        (loss terms unweighted) and evaluations "eval/<readout>/…". The abscissa is the epoch, or the step where
        several training records share an epoch or have none.
      path: of the PNG; a PDF is written beside it. Any suffix is replaced.

    Returns:
      The path of the PNG; None, and no figure, if no record has a metric that is drawn.
    """
    history = [r for r in history if "step" in r]
    against = _abscissa(history)
    candidates = [
        ("Loss and its terms before weighting", "loss", _loss_lines(history, against), signed_log_axis),
        ("Scale of the features", "mean square, smallest std", _scale_lines(history, against), log_axis),
        (
            "Log-determinant of the projected covariance",
            "nats per dimension",
            _half_lines(history, against, "logdet"),
            None,
        ),
        ("Spread of the projected covariance", "share", _spectrum_lines(history, against), from_zero),
    ]
    for panel in metrics.panels(metrics.LEARNING_CURVE):
        lines = _eval_lines(history, against, panel)
        candidates.append((panel.title, panel.label or panel.title, lines, from_zero if panel.from_zero else None))
    panels = [panel for panel in candidates if panel[2]]
    if not panels:
        return None
    figure, axes = grid(len(panels), columns=2 if len(panels) in (2, 4) else 3)
    for ax, (title, label, lines, scale) in zip(axes, panels, strict=True):
        for line in lines:
            ax.plot(line.pop("x"), line.pop("y"), linewidth=1.4, markersize=4, **line)
        finish(ax, title, against, label)
        if scale is not None:
            scale(ax)
        if len(lines) > 1:
            ax.legend(fontsize=8, frameon=False, ncols=2 if len(lines) > 3 else 1)
    return save(figure, path)


def training_dynamics(history: Sequence[dict], path: str | os.PathLike) -> pathlib.Path:
    """How the readouts develop over the evaluations of a run: probe, kNN, effective rank, and probe against rank.

    The kNN panel shows the best k with a band down to the worst. The last panel gives Spearman's ρ between probe
    accuracy and effective rank over the evaluations. Panels of your own metrics come before it.

    Args:
      history: records of a metrics.jsonl; of these the ones with "eval/<readout>/…" metrics count.
      path: of the PNG; a PDF is written beside it.

    Returns:
      The path of the PNG.

    Raises:
      ValueError: if there are no evaluations.
    """
    history = [r for r in history if "step" in r and any(key.startswith("eval/") for key in r)]
    if not history:
        raise ValueError("the history holds no evaluation (no key starts with eval/).")
    against = _abscissa(history)
    panels = [
        panel
        for panel in metrics.panels(metrics.TRAINING_DYNAMICS)
        if panel.always or any(_eval_series(history, against, readout, panel.value) for readout in READOUTS)
    ]
    figure, (*axes, both_ax) = grid(len(panels) + 1, columns=2 if len(panels) < 4 else 3)
    for ax, panel in zip(axes, panels, strict=True):
        for readout, (colour, marker, label) in READOUTS.items():
            points, lower = (_eval_series(history, against, readout, p) for p in (panel.value, panel.lower))
            if points:
                ax.plot(*_columns(points), color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
            edges = [(x, lower[x], points[x]) for x in points if x in lower]
            if edges:
                ax.fill_between(*zip(*edges, strict=True), color=colour, alpha=0.15, linewidth=0)
        finish(ax, panel.title, against, panel.label or panel.title)
    for readout, (colour, marker, label) in READOUTS.items():
        probes, ranks = (_eval_series(history, against, readout, pick) for pick in (_probe, _rank))
        shared = [x for x in probes if x in ranks]
        if shared:
            pairs = [ranks[x] for x in shared], [100 * probes[x] for x in shared]
            rho = spearman(*pairs)
            note = "" if math.isnan(rho) else f", ρ = {rho:.2f}"
            both_ax.plot(*pairs, color=colour, marker=marker, markersize=4, linewidth=0.5, label=label + note)
    finish(both_ax, "Probe against effective rank", "effective rank", "probe top-1 accuracy (%)")
    for ax in (*axes, both_ax):
        if ax.lines:
            ax.legend(fontsize=8, frameon=False)
        else:
            say_empty(ax)
    return save(figure, path)


def decomposition(history: Sequence[dict], path: str | os.PathLike) -> pathlib.Path | None:
    """The content of q and p over a run's evaluations: probe and best kNN, and their differences at the last one.

    Of (q,p), which may not have been measured, there are differences where it was.

    Args:
      history: records with "eval/<readout>/…" metrics of the readouts q, p and qp, see `training_dynamics`.
      path: of the PNG; a PDF is written beside it.

    Returns:
      The path of the PNG; None, and no figure, if there are no accuracies.

    Raises:
      ValueError: if no record has both q and p.
    """
    history = [r for r in history if all(any(k.startswith(f"eval/{half}/") for k in r) for half in ("q", "p"))]
    if not history:
        raise ValueError("the history holds no evaluation of q and p.")
    against = _abscissa(history)
    curves = {
        title: {r: points for r in ("q", "p", "qp") if (points := _eval_series(history, against, r, pick))}
        for title, pick in (("Linear probe", _probe), ("kNN, best k", _best_knn))
    }
    curves = {title: of_readouts for title, of_readouts in curves.items() if of_readouts}
    if not curves:
        return None
    figure, (*axes, delta_ax) = grid(len(curves) + 1, columns=len(curves) + 1)
    for ax, (title, of_readouts) in zip(axes, curves.items(), strict=True):
        for readout, points in of_readouts.items():
            colour, marker, label = READOUTS[readout]
            ax.plot(*_columns(points, 100), color=colour, marker=marker, markersize=4, linewidth=1.4, label=label)
        finish(ax, title, against, "top-1 accuracy (%)")
        ax.legend(fontsize=8, frameon=False)
    measured = {readout for of_readouts in curves.values() for readout in of_readouts}
    pairs = [pair for pair in (("q", "p"), ("qp", "q"), ("qp", "p")) if set(pair) <= measured]
    for i, (title, of_readouts) in enumerate(curves.items()):
        last = {readout: list(points.values())[-1] for readout, points in of_readouts.items()}
        differences = [100 * (last[a] - last[b]) for a, b in pairs]
        places = np.arange(len(pairs)) + 0.4 * (i - (len(curves) - 1) / 2)
        bars = delta_ax.bar(places, differences, 0.38, color=COLOURS[1 + i], label=title)
        delta_ax.bar_label(bars, fmt="%+.2f", fontsize=7)
    delta_ax.axhline(0, color="black", linewidth=0.8)
    delta_ax.margins(y=0.15)
    delta_ax.set_xticks(range(len(pairs)), [f"{READOUTS[a][2]} − {READOUTS[b][2]}" for a, b in pairs])
    finish(delta_ax, f"Differences at {against} {history[-1][against]:g}", "", "points of top-1 accuracy")
    delta_ax.legend(fontsize=8, frameon=False)
    return save(figure, path)


def summary_panels(summary: Mapping[str, Mapping], path: str | os.PathLike) -> pathlib.Path:
    """Four panels of a set of features: kNN sweep, covariance spectrum, cosines and norms.

    Args:
      summary: {readout: {"knn_top1", "spectrum", "cosine_histogram", "norm_histogram"}} as `evaluation.
        feature_summary` makes it, also when read back from JSON. Several readouts are drawn over each other; pass
        one for a figure of its own.
      path: of the PNG; a PDF is written beside it.

    Returns:
      The path of the PNG.

    Raises:
      ValueError: if the summary is empty or holds an unknown readout.
    """
    if not summary or set(summary) - set(READOUTS):
        raise ValueError(f"a summary of one or more of {list(READOUTS)} is expected, got {list(summary)}.")
    figure, (knn_ax, spectrum_ax, cosine_ax, norm_ax) = grid(4, columns=2)
    if len(summary) == 1:  # several are told apart by the legends
        figure.suptitle(f"Readout {READOUTS[next(iter(summary))][2]}", fontsize=11)
    for readout, parts in summary.items():
        colour, marker, label = READOUTS[readout]
        sweep = sorted((int(k), 100 * a) for k, a in parts["knn_top1"].items())  # JSON turns the ks into strings
        if sweep:
            knn_ax.plot(*zip(*sweep, strict=True), color=colour, marker=marker, markersize=4, label=label)
        eigenvalues = np.asarray(parts["spectrum"])
        order = np.arange(1, eigenvalues.size + 1)
        positive = eigenvalues > 1e-12 * eigenvalues.max()  # below is roundoff, which would stretch the axis
        spectrum_ax.plot(order[positive], eigenvalues[positive], color=colour, linewidth=1.4, label=label)
        for ax, name in ((cosine_ax, "cosine_histogram"), (norm_ax, "norm_histogram")):
            edges, counts = np.asarray(parts[name]["edges"]), np.asarray(parts[name]["counts"], float)
            density = counts / counts.sum() / np.diff(edges)
            ax.stairs(density, edges, color=colour, linewidth=1.4, label=label)
            ax.stairs(density, edges, color=colour, alpha=0.12, fill=True)
    finish(knn_ax, "kNN sweep (cosine)", "neighbours k", "top-1 accuracy (%)")
    finish(spectrum_ax, "Spectrum of the centred covariance", "index of the eigenvalue", "eigenvalue")
    finish(cosine_ax, "Cosines of random pairs (not centred)", "cosine", "density")
    finish(norm_ax, "Norms", "Euclidean norm", "density")
    if knn_ax.lines:
        log_ticks(knn_ax, knn_ax.lines[0].get_xdata())
    else:
        say_empty(knn_ax)
    spectrum_ax.set_yscale("log")
    for ax in (cosine_ax, norm_ax):
        ax.set_ylim(bottom=0)
    for ax in (knn_ax, spectrum_ax, cosine_ax, norm_ax):
        if len(summary) > 1 and ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8, frameon=False)
    return save(figure, path)


# -- Lines from records --------------------------------------------------------------------------------------


def _abscissa(history: Sequence[dict]) -> str:
    """The abscissa: "epoch" if all drawn records have one and it tells the training records apart, else "step"."""
    kinds = {kind: [r for r in history if any(key.startswith(kind) for key in r)] for kind in ("train/", "eval/")}
    epochs = {r["step"]: r.get("epoch") for r in kinds["train/"]}
    told_apart = len(set(epochs.values())) == len(epochs)
    return "epoch" if told_apart and all("epoch" in r for r in kinds["train/"] + kinds["eval/"]) else "step"


def _line(history: Sequence[dict], against: str, key: str, **style) -> list[dict]:
    x, y = series(history, key, against)
    return [dict(x=x, y=y, **style)] if x else []


def _loss_lines(history: Sequence[dict], against: str) -> list[dict]:
    lines = []
    for term, colour in zip(_LOSS_TERMS, COLOURS * 2, strict=False):
        lines += _line(history, against, f"train/{term}", label=term, color=colour)
    return lines


def _half_lines(history: Sequence[dict], against: str, quantity: str, linestyle: str = "-", name: str = "") -> list:
    """One training diagnostic of each half, train/q_<quantity> and so on."""
    lines = []
    for readout, (colour, _, label) in READOUTS.items():
        style = dict(color=colour, linestyle=linestyle, label=f"{label} {name}".strip())
        lines += _line(history, against, f"train/{readout}_{quantity}", **style)
    return lines


def _scale_lines(history: Sequence[dict], against: str) -> list[dict]:
    mean_squares = _half_lines(history, against, "mean_square", "-", "mean square")
    return mean_squares + _half_lines(history, against, "min_std", "--", "min std")


def _spectrum_lines(history: Sequence[dict], against: str) -> list[dict]:
    shares = _half_lines(history, against, "pr", "-", "PR / k")
    return shares + _half_lines(history, against, "eigmax", "--", "λmax / trace")


def _eval_lines(history: Sequence[dict], against: str, panel: metrics.Panel) -> list[dict]:
    lines = []
    for readout, (colour, marker, label) in READOUTS.items():
        points = _eval_series(history, against, readout, panel.value)
        if points:
            x, y = _columns(points)
            lines.append(dict(x=x, y=y, color=colour, marker=marker, label=label))
    return lines


def _eval_series(
    history: Sequence[dict], against: str, readout: str, pick: Callable[[dict], float | None]
) -> dict[float, float]:
    """{abscissa: pick(metrics of the readout)} over the evaluations for which it finds something, ascending."""
    found = {}
    for record in history:
        value = pick(select(record, f"eval/{readout}"))
        if value is not None:
            found[record[against]] = value
    return dict(sorted(found.items()))


def _columns(points: Mapping[float, float], factor: float = 1.0) -> tuple[list[float], list[float]]:
    return list(points), [factor * y for y in points.values()]


def _best_knn(found: dict) -> float | None:
    return max(keys.knn_sweep(found).values(), default=None)


def _probe(found: dict) -> float | None:
    return _first(found, "probe_top1")


def _rank(found: dict) -> float | None:
    return _first(found, "effective_rank")


def _first(found: dict, quantity: str) -> float | None:
    key = keys.first(found, quantity)
    return None if key is None else found[key]
