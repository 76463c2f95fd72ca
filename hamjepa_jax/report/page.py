"""A report as a sequence of blocks, written as Markdown and as one HTML file with everything inside."""

import base64
import html
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from hamjepa_jax.files import write_text
from hamjepa_jax.report.tables import markdown_rows


class Heading(NamedTuple):
    text: str


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Table(NamedTuple):
    """Attributes:
    header: names of the columns.
    rows: cells; numbers come as finished text.
    text_columns: how many of the first columns hold text, and are aligned to the left.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1


class Figure(NamedTuple):
    """Attributes:
    path: of the PNG, below the report's folder.
    caption: what it shows.
    """

    path: pathlib.Path
    caption: str


class Listing(NamedTuple):
    """Attributes:
    title: always shown.
    text: shown on demand, in a fixed-width font.
    """

    title: str
    text: str


Block = Heading | Text | Table | Figure | Listing

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1080px;
       margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.6em; margin-bottom: .2em; } h2 { font-size: 1.2em; margin: 2em 0 .4em; }
p { max-width: 52em; margin: .6em 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .8em 0; font-size: .92em; }
th { border-bottom: 2px solid #444; vertical-align: bottom; } td { border-bottom: 1px solid #ddd; }
th, td { padding: .28em .8em .28em 0; text-align: right; white-space: nowrap; }
th.text, td.text { text-align: left; }
figure { margin: 1.2em 0; } img { max-width: min(100%, 860px); height: auto; }
figcaption { color: #444; font-size: .92em; }
@media (max-width: 640px) { figure { overflow-x: auto; } img { width: 720px; max-width: none; } }
pre { background: #f6f6f6; padding: .8em; overflow-x: auto; font-size: .85em; } summary { cursor: pointer; }
"""


def write_page(title: str, blocks: Sequence[Block], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Writes report.md (its figures beside it) and report.html (its figures inside).

    Returns:
      {"markdown", "html"}: the files.
    """
    files = {"markdown": folder / "report.md", "html": folder / "report.html"}
    write_text(files["markdown"], to_markdown(title, blocks, folder))
    write_text(files["html"], to_html(title, blocks))
    return files


def to_markdown(title: str, blocks: Sequence[Block], folder: pathlib.Path) -> str:
    parts = [f"# {' '.join(title.split())}"]
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"## {text}")
            case Text(text):
                parts.append(text)
            case Table(header, rows, text_columns):
                rule = [":--"] * text_columns + ["--:"] * (len(header) - text_columns)
                cells = [[" ".join(c.split()).replace("|", "\\|") for c in row] for row in (header, rule, *rows)]
                parts.append("\n".join(markdown_rows(cells)))
            case Figure(path, caption):
                parts.append(f"![{caption}]({path.relative_to(folder).as_posix()})\n\n{caption}")
            case Listing(name, text):
                parts.append(f"<details><summary>{html.escape(name)}</summary>\n\n```\n{text}\n```\n\n</details>")
    return "\n\n".join(parts) + "\n"


def to_html(title: str, blocks: Sequence[Block]) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for block in blocks:
        match block:
            case Heading(text):
                parts.append(f"<h2>{html.escape(text)}</h2>")
            case Text(text):
                parts.append(f"<p>{html.escape(text)}</p>")
            case Table(header, rows, text_columns):
                lines = [_html_row("th", header, text_columns), *(_html_row("td", r, text_columns) for r in rows)]
                parts.append('<div class="scroll"><table>\n' + "\n".join(lines) + "\n</table></div>")
            case Figure(path, caption):
                data = base64.b64encode(path.read_bytes()).decode()
                shown = html.escape(caption)
                parts.append(
                    f'<figure><img alt="{shown}" src="data:image/png;base64,{data}">'
                    f"<figcaption>{shown}</figcaption></figure>"
                )
            case Listing(name, text):
                parts.append(
                    f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(text)}</pre></details>"
                )
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"
    )


def _html_row(tag: str, cells: Sequence[str], text_columns: int) -> str:
    marked = (
        f'<{tag} class="text">{html.escape(c)}</{tag}>' if i < text_columns else f"<{tag}>{html.escape(c)}</{tag}>"
        for i, c in enumerate(cells)
    )
    return f"<tr>{''.join(marked)}</tr>"
