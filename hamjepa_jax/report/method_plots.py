"""Figures that compare methods, and accuracy over a grid of settings."""

import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hamjepa_jax.report.axes import COLOURS, READOUTS, finish, grid, log_axis, log_ticks, save, say_empty
from hamjepa_jax.report.significance import mean_std

MOST_IN_PANEL = 5  # With more methods the legend stands beside the panels.

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def accuracy_figure(
    panels: Mapping[str, Mapping[tuple[str, str], Sequence[float]]],
    published: Mapping[str, Mapping[tuple[str, str], tuple[float, float | None]]],
    path: str | os.PathLike,
) -> pathlib.Path:
    """Accuracy of every method and readout: mean and deviation over seeds, each seed, and the published number.

    Args:
      panels: {title: {(method, readout): accuracies in per cent, one for each seed}}.
      published: {title: {(method, readout): (mean, std or None)}}, in per cent; may be empty.
      path: of the PNG; a PDF is written beside it.
    """
    figure, axes = grid(len(panels), columns=len(panels))
    for ax, (title, groups) in zip(axes, panels.items(), strict=True):
        styles = _styles(method for method, _ in groups)
        for y, ((method, readout), values) in enumerate(groups.items()):
            (mean, std), colour = mean_std(values), styles[method]["color"]
            ax.barh(y, mean, height=0.7, color=colour, alpha=0.35)
            if not math.isnan(std):
                ax.errorbar(mean, y, xerr=std, color=colour, capsize=3, linewidth=1.4)
            ax.plot(values, y + _spread(len(values)), "o", color=colour, markersize=3)
            if (method, readout) in published.get(title, {}):
                ax.plot(published[title][method, readout][0], y, "D", color="black", fillstyle="none", markersize=7)
        _name_rows(ax, [f"{method} {READOUTS[readout][2]}" for method, readout in groups], shown=ax is axes[0])
        finish(ax, title, "top-1 accuracy (%)", "")
        if published.get(title):
            ax.plot([], [], "D", color="black", fillstyle="none", label="published")
            ax.legend(fontsize=8, frameon=False, loc="lower right")
    _fit_height(figure, axes, len(groups))
    return save(figure, path)


def differences_figure(
    panels: Mapping[str, Mapping[str, Mapping]], reference: str, path: str | os.PathLike
) -> pathlib.Path:
    """Paired differences of methods from one of them: the mean, its confidence interval, and each seed.

    Args:
      panels: {title: {method and readout: {"difference", "by_seed"} and, of several seeds, "low" and "high"}}, in
        points of accuracy, positive where the method is above the reference.
      reference: its name.
      path: of the PNG; a PDF is written beside it.
    """
    figure, axes = grid(len(panels), columns=len(panels))
    for ax, (title, methods) in zip(axes, panels.items(), strict=True):
        ax.axvline(0, color="black", linewidth=0.8)
        for y, d in enumerate(methods.values()):
            ax.plot(d["by_seed"], y + _spread(len(d["by_seed"])), "o", color=COLOURS[5], markersize=3)
            if "low" in d:
                ax.plot([d["low"], d["high"]], [y, y], color=COLOURS[1], linewidth=1.6)
            ax.plot(d["difference"], y, "D", color=COLOURS[1], markersize=4.5)
        _name_rows(ax, list(methods), shown=ax is axes[0])
        finish(ax, title, f"points above {reference}", "")
    _fit_height(figure, axes, len(methods))
    return save(figure, path)


def _spread(number: int) -> np.ndarray:
    """Offsets that keep the dots of so many seeds apart."""
    return np.linspace(-0.2, 0.2, number) if number > 1 else np.zeros(1)


def _name_rows(ax: "Axes", names: Sequence[str], *, shown: bool) -> None:
    """One row for each name, the first on top."""
    ax.set_yticks(range(len(names)), names if shown else [])
    ax.set_ylim(len(names) - 0.4, -0.6)


def _fit_height(figure: "Figure", axes: "Sequence[Axes]", rows: int) -> None:
    figure.set_size_inches(4.6 * len(axes), 1.1 + 0.26 * rows)


def sweep_figure(
    groups: Mapping[tuple[str, str], Sequence[Mapping[int, float]]], path: str | os.PathLike
) -> pathlib.Path:
    """kNN accuracy against k, a panel for each readout: mean over seeds with a band of one deviation.

    Args:
      groups: {(method, readout): {k: accuracy in per cent} for each seed}.
      path: of the PNG; a PDF is written beside it.
    """
    figure, axes = _by_readout(groups, "kNN sweep", "neighbours k")
    ks = list(next(iter(groups.values()))[0])
    for ax in axes:
        log_ticks(ax, ks)
    return save(figure, path)


def progress_figure(
    groups: Mapping[tuple[str, str], Sequence[Mapping[float, float]]], title: str, path: str | os.PathLike
) -> pathlib.Path:
    """An accuracy in the course of training, a panel for each readout: mean over seeds, band of one deviation.

    Args:
      groups: {(method, readout): {epoch: accuracy in per cent} for each seed}; an epoch that a seed lacks is left
        out.
      title: of the panels.
      path: of the PNG; a PDF is written beside it.
    """
    return save(_by_readout(groups, title, "epoch")[0], path)


def grid_figure(panels: Sequence[Mapping], path: str | os.PathLike) -> pathlib.Path:
    """Numbers over one or two settings: lines with error bars, or heat maps with the number in each cell.

    Args:
      panels: each {"title", "x": (name, values), "y": (name, values) or None, "mean": [y, x], "std": [y, x]}, NaN
        where nothing was measured; without "y" there is one row. Accuracies in per cent, unless "label" names
        other numbers and "form" says how they are written; with "log" their scale is logarithmic, if all are
        positive.
      path: of the PNG; a PDF is written beside it.
    """
    columns = min(len(panels), 2)
    figure, axes = grid(len(panels), columns=columns)
    for ax, panel in zip(axes, panels, strict=True):
        (x_name, x_values), mean, std = panel["x"], np.asarray(panel["mean"]), np.asarray(panel["std"])
        ticks = np.arange(len(x_values))
        finite = mean[np.isfinite(mean)]
        log = panel.get("log", False) and finite.size > 0 and finite.min() > 0
        label, form = panel.get("label", "top-1 accuracy (%)"), panel.get("form", ".1f")
        if panel["y"] is None:
            errors = np.where(np.isnan(std[0]), 0.0, std[0])
            ax.errorbar(
                ticks, mean[0], errors, color=COLOURS[1], marker="o", markersize=4, capsize=3, linewidth=1.4
            )
            finish(ax, panel["title"], x_name, label)
            ax.set_xticks(ticks, [f"{v}" for v in x_values])
            if log:
                log_axis(ax)
                ax.tick_params(axis="y", which="both", labelsize=8)
            continue
        y_name, y_values = panel["y"]
        finish(ax, panel["title"], x_name, y_name)
        ax.grid(visible=False)
        shown = np.ma.masked_invalid(mean)
        image = ax.imshow(shown, cmap="cividis", norm="log" if log else None, aspect="auto", origin="lower")
        ax.set_xticks(ticks, [f"{v}" for v in x_values])
        ax.set_yticks(np.arange(len(y_values)), [f"{v}" for v in y_values])
        for (row, column), value in np.ndenumerate(mean):
            if np.isfinite(value):
                deviation = f"\n±{std[row, column]:{form}}" if np.isfinite(std[row, column]) else ""
                colour = "black" if image.norm(value) > 0.5 else "white"
                ax.text(
                    column, row, f"{value:{form}}{deviation}", ha="center", va="center", fontsize=7.5, color=colour
                )
        bar = figure.colorbar(image, ax=ax)
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=7, which="both")
    return save(figure, path)


def _by_readout(groups, title: str, x_label: str) -> "tuple[Figure, list[Axes]]":
    """A panel for each readout with every method that has it; a method without q and p stands in every panel."""
    readouts = [r for r in READOUTS if r != "z" and any(r == other for _, other in groups)] or ["z"]
    figure, axes = grid(len(readouts), columns=len(readouts))
    styles = _styles(method for method, _ in groups)
    for ax, panel in zip(axes, readouts, strict=True):
        for (method, readout), curves in groups.items():
            if readout in (panel, "z"):
                name = f"{method} {READOUTS['z'][2]}" if readout == "z" else method
                _banded(ax, curves, marker=READOUTS[readout][1], label=name, **styles[method])
        shown = "" if panel == "z" else f", {READOUTS[panel][2]}"
        finish(ax, title + shown, x_label, "top-1 accuracy (%)")
        if not ax.lines:
            say_empty(ax)
        elif len(styles) <= MOST_IN_PANEL:
            ax.legend(fontsize=8, frameon=False)
    if len(styles) > MOST_IN_PANEL and axes[-1].lines:
        figure.legend(*axes[-1].get_legend_handles_labels(), fontsize=8, frameon=False, loc="outside right upper")
    return figure, axes


def _banded(ax: "Axes", curves: Sequence[Mapping[float, float]], *, color: str, **style: str) -> None:
    """The mean of the curves at the abscissae that all have, with a band of one deviation."""
    x = sorted(set.intersection(*(set(curve) for curve in curves)))
    if not x:
        return
    values = np.asarray([[curve[at] for at in x] for curve in curves])
    mean = values.mean(axis=0)
    ax.plot(x, mean, color=color, markersize=4, linewidth=1.4, **style)
    if len(values) > 1:
        std = values.std(axis=0, ddof=1)
        ax.fill_between(x, mean - std, mean + std, color=color, alpha=0.12, linewidth=0)


def _styles(methods: Iterable[str]) -> dict[str, dict[str, str]]:
    """A colour for each method, and from the eighth on the same colours with other lines."""
    colours, lines = ("#0072B2", "#D55E00", "#000000", *COLOURS[2:6]), ("-", "--", ":", "-.")
    return {
        method: {"color": colours[i % len(colours)], "linestyle": lines[i // len(colours) % len(lines)]}
        for i, method in enumerate(dict.fromkeys(methods))
    }
