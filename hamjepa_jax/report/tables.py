"""The table at the end of a run: one row for each kind of features, one protocol for each column."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from hamjepa_jax import metrics as registered_metrics
from hamjepa_jax.metrics import RUN_TABLE, Shown, keys
from hamjepa_jax.metrics.keys import HEADLINE_K
from hamjepa_jax.report.logs import select
from hamjepa_jax.report.significance import mean_std

Metrics = Mapping[str, float]
Rows = Mapping[str, Metrics | Sequence[Metrics]]

READOUT_NAMES = {"q": "q", "p": "p", "qp": "(q,p)", "z": "z"}
MISSING = "–"
NOTE_COLUMNS = 120


def comparison_table(rows: Rows, *, headline_k: int | None = None) -> str:
    """Aligned plain text; below it the names of the protocols.

    Args:
      rows: {name of the row: metrics of one readout, or a sequence of them, one per seed}, keyed as in
        `evaluation.protocol` without the readout (see `logs.select`). A dash stands for a missing number.
      headline_k: the k of the first column; that of `metrics.keys.headline_k` if None.

    Returns:
      Lines without a newline at the end; accuracies in per cent, over several seeds as mean ± sample standard
      deviation.
    """
    header, body, note = _cells(rows, headline_k)
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]

    def line(cells):
        first, *numbers = cells
        padded = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(numbers, widths[1:], strict=True))]
        return "  ".join(padded).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    notes = textwrap.wrap(note, NOTE_COLUMNS, break_long_words=False, break_on_hyphens=False)
    return "\n".join([line(header), rule, *map(line, body), rule, *notes])


def markdown_table(rows: Rows, *, headline_k: int | None = None) -> str:
    """The table of `comparison_table` in Markdown."""
    header, body, note = _cells(rows, headline_k)
    alignment = [":--", *["--:"] * (len(header) - 1)]
    return "\n".join([*markdown_rows((header, alignment, *body)), "", note])


def markdown_rows(rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown; the second row says how columns are aligned."""
    return [f"| {' | '.join(cells)} |" for cells in rows]


def rows_of(results: Mapping[str, Metrics | float]) -> dict[str, dict]:
    """Rows of the table of one metrics.json: one for each readout of each kind of features."""
    rows = {}
    for kind, metrics in results.items():
        if not isinstance(metrics, Mapping):
            continue
        for readout, shown in READOUT_NAMES.items():
            selected = select(metrics, readout)
            if selected:
                rows[_row_name(kind, shown)] = selected
    return rows


def _row_name(kind: str, readout: str) -> str:
    """ "pixels" -> "raw pixels", "pixels_32px" -> "pixels at 32 px", "on digits" -> "q on digits"."""
    kinds = {"trained": "{}", "transformed": "H½ {}", "untrained": "untrained {}"}
    if kind in kinds:
        return kinds[kind].format(readout)
    if kind.startswith("on "):
        return f"{readout} {kind}"
    _, _, size = kind.partition("_")
    return f"pixels at {size.removesuffix('px')} px" if size else "raw pixels"


def metric_columns(table: str, texts: Iterable[str], *, headline_k: int = HEADLINE_K) -> list[Shown]:
    """The columns that the metrics have in a table, in their order; your own metrics stand at the end.

    Args:
      table: one of `metrics.RUN_TABLE`, `metrics.METHODS_TABLE` and `metrics.FLOW_TABLE`.
      texts: the keys of all rows, without the readout. Where rows were measured by several protocols (probes of
        several rates, say), a column shows the first one met, and dashes for rows without it.
      headline_k: the k of the kNN column.
    """
    texts = tuple(dict.fromkeys(texts))
    shown = (column.shown(texts, headline_k) for column in registered_metrics.columns(table))
    return [column for column in shown if column is not None]


def cell(column: Shown, runs: Sequence[Metrics]) -> str:
    """A row's cell in a column: mean ± deviation over its runs, one for each seed."""
    values, remark = column.pick(runs)
    text = mean_text(values, column.factor, column.digits, scientific=column.scientific)
    return text + (f" ({remark})" if remark else "")


def _cells(rows: Rows, headline_k: int | None) -> tuple[list[str], list[list[str]], str]:
    """Header, rows of text, and the note on protocols."""
    seeds = {name: [runs] if isinstance(runs, Mapping) else list(runs) for name, runs in rows.items()}
    measured = [metrics for runs in seeds.values() for metrics in runs]
    if headline_k is None:
        headline_k = keys.headline_k(k for metrics in measured for k in keys.knn_sweep(metrics))
    columns = metric_columns(RUN_TABLE, (key for metrics in measured for key in metrics), headline_k=headline_k)
    header = ["features", *(column.title for column in columns)]
    body = [[name, *(cell(column, runs) for column in columns)] for name, runs in seeds.items()]
    notes = ["top-1", *(column.note for column in columns if column.note)]
    if any(len(runs) > 1 for runs in seeds.values()):
        notes.append("mean ± sample standard deviation over seeds")
    return header, body, "; ".join(notes) + "."


def mean_text(values: Sequence[float], factor: float = 100, digits: int = 2, *, scientific: bool = False) -> str:
    """ "31.45 ± 0.27" of several runs, "31.45" of one, a dash of none; each value times `factor`."""
    if not values:
        return MISSING
    mean, std = mean_std([factor * v for v in values])
    form = f".{digits}e" if scientific else f".{digits}f"
    return format(mean, form) if len(values) == 1 else f"{mean:{form}} ± {std:{form}}"


def over_seeds(seeds: Sequence[int]) -> str:
    """ "Seeds 0, 1: mean ± sample standard deviation over them", or "Seed 0"."""
    shown = ", ".join(map(str, seeds))
    return f"Seeds {shown}: mean ± sample standard deviation over them" if len(seeds) > 1 else f"Seed {shown}"


def signed(x: float) -> str:
    """ "+0.55" or "−0.55"."""
    return f"{x:+.2f}".replace("-", "−")
