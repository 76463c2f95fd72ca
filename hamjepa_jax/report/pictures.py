"""Pictures of what a run has learned: a map of the test set, tokens over images, pairs of views, trajectories."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hamjepa_jax.report.axes import blank, draw_image, finish, grid, save, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE = 0.92  # Of an image, in cells.
MOST_CLASSES = 20  # With a colour of their own in the legend.


class Pair(NamedTuple):
    """Two random views of an image.

    Attributes:
      views: two images [h, w, 3] uint8.
      before: distance of their states.
      after: distance of the flow's prediction from the first view's state to the second's.
    """

    views: tuple[np.ndarray, np.ndarray]
    before: float
    after: float


def map_figure(
    maps: Mapping[str, np.ndarray], labels: np.ndarray | None, class_names: Sequence[str], path: str | os.PathLike
) -> pathlib.Path:
    """The test set in two dimensions, a panel for each map, coloured by class.

    Args:
      maps: {title: [n, 2]}.
      labels: [n] positions in class_names; None without labels.
      class_names: a name for each class; a legend names up to 20.
      path: of the PNG; a PDF is written beside it.
    """
    figure, axes = grid(len(maps), columns=len(maps))
    figure.set_size_inches(5.2 * len(maps) + 1.4, 4.8)
    for ax, (title, xy) in zip(axes, maps.items(), strict=True):
        if labels is None:
            ax.scatter(*xy.T, s=7, color="#0072B2", linewidths=0)
        else:
            for c in np.unique(labels):
                name = class_names[c] if len(class_names) <= MOST_CLASSES else None
                colour = _class_colour(c, len(class_names))
                ax.scatter(*xy[labels == c].T, s=7, color=colour, linewidths=0, label=name)
        finish(ax, title, "", "")
        ax.set_xticks([])
        ax.set_yticks([])
    if labels is not None and len(class_names) <= MOST_CLASSES:
        axes[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2)
    return save(figure, path)


def tokens_figure(images: Sequence[np.ndarray], tokens: np.ndarray, path: str | os.PathLike) -> pathlib.Path:
    """Images, and below each the first three principal components of its tokens as red, green and blue.

    Args:
      images: [h, w, 3] uint8 each.
      tokens: [n, rows, columns, 3] in [0, 1].
      path: of the PNG; a PDF is written beside it.
    """
    figure, ax = sheet((1.05 * len(images), 2.4))
    for i, (image, colours) in enumerate(zip(images, tokens, strict=True)):
        draw_image(ax, image, i, 0, SIDE)
        draw_image(ax, colours, i, 1, SIDE)
    ax.set_title("First three principal components of the tokens, over all images shown", fontsize=9)
    _frame(ax, len(images), 2)
    return save(figure, path)


def pairs_figure(pairs: Sequence[Pair], shown: int, path: str | os.PathLike) -> pathlib.Path:
    """Pairs of views with the distance of their states before and after the flow; and those of all pairs.

    Args:
      pairs: all that were measured.
      shown: how many of them are drawn as images.
      path: of the PNG; a PDF is written beside it.
    """
    figure = blank((9.4, 0.3 * min(shown, len(pairs)) + 0.9))
    left, right = figure.subplots(1, 2, width_ratios=[1.35, 1])
    left.set_axis_off()
    for i, pair in enumerate(pairs[:shown]):
        row, column = divmod(i, 2)
        x = 4.4 * column
        for k, view in enumerate(pair.views):
            draw_image(left, view, x + k, row, SIDE)
        left.text(x + 2.1, row + 0.46, f"{pair.before:.2f} → {pair.after:.2f}", va="center", fontsize=8)
    left.set_title("Two views: distance of states → after the flow", fontsize=9)
    _frame(left, 8.8, -(-min(shown, len(pairs)) // 2))
    before, after = np.asarray([(p.before, p.after) for p in pairs]).T
    right.scatter(before, after, s=9, color="#0072B2", linewidths=0)
    top = 1.05 * max(before.max(), after.max())
    right.plot([0, top], [0, top], color="#777777", linewidth=0.8)
    nearer = np.mean(after < before)
    finish(right, f"{nearer:.0%} of {len(pairs)} pairs are nearer after the flow", "before", "after")
    return save(figure, path)


def trajectories_figure(
    plane: np.ndarray, energies: np.ndarray | None, path: str | os.PathLike, *, labels: np.ndarray | None
) -> pathlib.Path:
    """Paths of latent states under the flow in one conjugate pair of coordinates, and their energy.

    Args:
      plane: [k + 1, n, 2], q and p along one direction after 0 … k applications of the flow to n states.
      energies: [k + 1, n]; None without an energy.
      path: of the PNG; a PDF is written beside it.
      labels: [n] classes for colours, or None.
    """
    figure, axes = grid(1 if energies is None else 2, columns=2)
    colours = [
        "#0072B2" if labels is None else _class_colour(c, 10)
        for c in (labels if labels is not None else range(plane.shape[1]))
    ]
    for i, colour in enumerate(colours):
        axes[0].plot(*plane[:, i].T, color=colour, linewidth=1.1, marker=".", markersize=3)
        axes[0].plot(*plane[0, i], color=colour, marker="o", markersize=5)
        if energies is not None:
            axes[1].plot(energies[:, i], color=colour, linewidth=1.1)
    finish(
        axes[0],
        f"{len(plane) - 1} applications of the flow (discs: their start)",
        "q along its first component",
        "p along the same",
    )
    if energies is not None:
        finish(axes[1], "Energy along the way", "applications of the flow", "H(q, p)")
    return save(figure, path)


def _class_colour(c: int, classes: int) -> tuple:
    from matplotlib import colormaps

    return colormaps["tab10" if classes <= 10 else "tab20"](int(c) % (10 if classes <= 10 else 20))


def _frame(ax: "Axes", width: float, height: float) -> None:
    ax.set_xlim(-0.05, width)
    ax.set_ylim(height, -0.05)
    ax.set_aspect("equal")
