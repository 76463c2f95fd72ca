"""The look that figures of runs share: colours, axes and files."""

import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hamjepa_jax.files import written_at_once

if TYPE_CHECKING:  # Matplotlib takes half a second to import: a run needs it when it draws.
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any kind of colour vision. Readouts keep theirs in every figure.
READOUTS = {
    "q": ("#0072B2", "o", "q"),
    "p": ("#D55E00", "s", "p"),
    "qp": ("#009E73", "^", "(q, p)"),
    "z": ("#000000", "D", "z"),
}
PNG_DPI = 150
MOST_PIXELS = 96  # Larger images are drawn with every second, third … pixel.
COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999")


def blank(size: tuple[float, float]) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def grid(panels: int, columns: int) -> "tuple[Figure, list[Axes]]":
    rows = -(-panels // columns)
    figure = blank((4.2 * columns, 3.2 * rows))
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)  # type: ignore[call-arg]
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]


def sheet(size: tuple[float, float]) -> "tuple[Figure, Axes]":
    """A figure without axes, for images."""
    figure = blank(size)
    ax = figure.add_subplot()
    ax.set_axis_off()
    return figure, ax


def draw_image(ax: "Axes", image: np.ndarray, x: float, y: float, side: float) -> None:
    """Draws an image [h, w, 3] with its upper left corner at (x, y)."""
    step = -(-max(image.shape[:2]) // MOST_PIXELS)
    ax.imshow(image[::step, ::step], extent=(x, x + side, y + side, y), interpolation="nearest")


def finish(ax: "Axes", title: str, x_label: str, y_label: str) -> None:
    ax.set_title(title, fontsize=10)
    ax.set_xlabel(x_label, fontsize=9)
    ax.set_ylabel(y_label, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#DDDDDD", linewidth=0.5)
    ax.set_axisbelow(True)


def say_empty(ax: "Axes") -> None:
    ax.text(0.5, 0.5, "not measured", ha="center", va="center", color="#777777", transform=ax.transAxes)


def log_axis(ax: "Axes") -> None:
    ax.set_yscale("log")


def log_ticks(ax: "Axes", values: Sequence[float]) -> None:
    """A logarithmic abscissa with a plain number at each of the values, and no other ticks."""
    from matplotlib.ticker import NullLocator, ScalarFormatter

    ax.set_xscale("log")
    ax.set_xticks(values)
    ax.xaxis.set_major_formatter(ScalarFormatter())
    ax.xaxis.set_minor_locator(NullLocator())


def signed_log_axis(ax: "Axes") -> None:
    # Penalties of floors that hold are exactly 0, which a logarithmic axis would leave out.
    ax.set_yscale("symlog", linthresh=1e-3)


def from_zero(ax: "Axes") -> None:
    ax.set_ylim(bottom=0)


def save(figure: "Figure", path: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    png = path.with_suffix(".png")
    figure.set_dpi(PNG_DPI)
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine(None)  # The layout is found; each file would search it anew, and draw twice for that.
    with written_at_once(png) as temporary:
        figure.savefig(temporary, format="png", dpi=PNG_DPI)
    with written_at_once(path.with_suffix(".pdf")) as temporary:  # the same data, the same bytes
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
    return png
