"""The figure of test images and their nearest training images."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hamjepa_jax.report.axes import draw_image, save, sheet

SIDE = 0.86  # Of an image, in cells.
SAME, OTHER = "#009E73", "#D55E00"


class Neighbour(NamedTuple):
    """Attributes:
    image: [h, w, 3] uint8.
    same_class: whether its class is that of the query; None without labels.
    """

    image: np.ndarray
    same_class: bool | None


class Neighbours(NamedTuple):
    """Attributes:
    queries: [h, w, 3] uint8 each.
    by: {name of the features: the neighbours of each query, nearest first}.
    """

    queries: Sequence[np.ndarray]
    by: Mapping[str, Sequence[Sequence[Neighbour]]]


def neighbours_figure(found: Neighbours, path: str | os.PathLike) -> pathlib.Path:
    """A row for each query: the test image, then its nearest training images by each kind of features.

    Args:
      found: what is drawn; a frame shows whether a neighbour's class is the query's.
      path: of the PNG; a PDF is written beside it.

    Returns:
      The path of the PNG.
    """
    from matplotlib.patches import Rectangle

    counts = [len(rows[0]) for rows in found.by.values()]
    columns, rows = 1 + sum(counts) + 0.5 * len(counts), len(found.queries)
    figure, ax = sheet((0.62 * columns, 0.62 * (rows + 1)))
    left = 1.5
    ax.text(SIDE / 2, -0.2, "query", ha="center", fontsize=8)
    for row, image in enumerate(found.queries):
        draw_image(ax, image, 0, row, SIDE)
    for (name, of_queries), count in zip(found.by.items(), counts, strict=True):
        same = [n.same_class for of_query in of_queries for n in of_query]
        title = f"nearest by {name}"
        if None not in same:
            title += f": {100 * np.mean(same):.0f} % of the query's class"
        ax.text(left + (count - 1 + SIDE) / 2, -0.2, title, ha="center", fontsize=8)
        for row, of_query in enumerate(of_queries):
            for k, neighbour in enumerate(of_query):
                draw_image(ax, neighbour.image, left + k, row, SIDE)
                if neighbour.same_class is None:
                    continue
                colour = SAME if neighbour.same_class else OTHER
                ax.add_patch(Rectangle((left + k, row), SIDE, SIDE, fill=False, edgecolor=colour, linewidth=1.6))
        left += count + 0.5
    ax.set_xlim(-0.1, left - 0.5)
    ax.set_ylim(rows, -0.6)
    ax.set_aspect("equal")
    return save(figure, path)
