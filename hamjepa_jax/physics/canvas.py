"""Figures without pyplot's global state, in one look: colour-blind-safe, readable alone, PNG and vector PDF."""

import pathlib
from typing import TYPE_CHECKING

from hamjepa_jax import files

if TYPE_CHECKING:  # Matplotlib takes half a second to import: measuring needs none of it.
    from matplotlib.figure import Figure

# Okabe and Ito's palette (2008), told apart under the common colour-vision deficiencies.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#6E6E6E"
SEQUENTIAL = "cividis"
DIVERGING = "PuOr_r"  # safe for red-green deficiencies, white in the middle
MASKED = "#C9C9C9"

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "figure.titlesize": 11,
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "pdf.fonttype": 3,  # glyphs as outlines: the text can be searched, and writing is a second faster than with 42
    "image.interpolation": "nearest",
}


def styled():
    """A context in which figures take the project's look; needed while drawing and while saving."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **subplots):
    """An Agg figure of width × height inches and its axes (squeezed like `Figure.subplots`)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **subplots)


def colour_map(name: str):
    """A colour map that shows masked values (nan) in grey."""
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad=MASKED)


def save(figure: "Figure", out: pathlib.Path, name: str) -> None:
    """Writes out/name.png and out/name.pdf; the files do not depend on the date."""
    with files.written_at_once(out / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    figure.set_layout_engine("none")  # settled; computing it again for the PDF would take as long as drawing
    with files.written_at_once(out / f"{name}.pdf") as temporary:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})


def write_captions(out: pathlib.Path, title: str, captions: dict[str, str]) -> None:
    """Writes out/captions.md: a heading and a paragraph for each figure."""
    sections = [f"## {name}\n\n{caption}\n" for name, caption in captions.items()]
    files.write_text(out / "captions.md", "\n".join([f"# {title}\n", *sections]))
