"""The comparison table at the end of a run: one row per kind of features, one protocol per column."""

import re
import statistics
from collections.abc import Mapping, Sequence

from hamjepa_jax.report.significance import mean_std

Metrics = Mapping[str, float]
Rows = Mapping[str, Metrics | Sequence[Metrics]]

_MISSING = "–"


def comparison_table(rows: Rows, *, headline_k: int = 20) -> str:
    """Aligned plain text; below it a line that names the protocols.

    Args:
      rows: {name of the row: metrics of one readout, or a sequence of them, one per seed}, keyed as in
        `evaluation.protocol` without the readout (see `read.select`). What a row lacks is shown as a dash.
      headline_k: the k of the first column.

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
    return "\n".join([line(header), rule, *map(line, body), rule, note])


def markdown_table(rows: Rows, *, headline_k: int = 20) -> str:
    """The table of `comparison_table` in Markdown."""
    header, body, note = _cells(rows, headline_k)
    alignment = [":--", *["--:"] * (len(header) - 1)]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, alignment, *body)]
    return "\n".join([*lines, "", note])


def knn_sweep(metrics: Metrics) -> dict[int, float]:
    """{k: top-1 accuracy} of one readout's metrics, ascending in k (see `evaluation.protocol` for the keys)."""
    found = {re.fullmatch(r"knn_top1_k(\d+)_cosine_majority", key): value for key, value in metrics.items()}
    return dict(sorted((int(match[1]), value) for match, value in found.items() if match))


def _cells(rows: Rows, headline_k: int) -> tuple[list[str], list[list[str]], str]:
    """Header, rows of text, and the note on protocols."""
    seeds = {name: [runs] if isinstance(runs, Mapping) else list(runs) for name, runs in rows.items()}
    # Where rows were measured by several protocols (probes of several rates, say) a column shows the first one met,
    # and dashes for rows without it: numbers of different protocols never share a column.
    every_key = dict.fromkeys(key for runs in seeds.values() for metrics in runs for key in metrics)
    probe = next((key for key in every_key if key.startswith("probe_top1_")), None)
    rank = next((key for key in every_key if key.startswith("effective_rank_top")), None)

    header = ["features", f"kNN@{headline_k} %", "best kNN % (k)", "probe %", "effective rank"]
    body = []
    for name, runs in seeds.items():
        by_k = {k: [sweep[k] for sweep in map(knn_sweep, runs) if k in sweep] for k in _ks(runs)}
        best_k = max(by_k, key=lambda k: statistics.mean(by_k[k]), default=None)
        body.append(
            [
                name,
                _text(by_k.get(headline_k, []), 100, 2),
                _MISSING if best_k is None else f"{_text(by_k[best_k], 100, 2)} ({best_k})",
                _text([metrics[probe] for metrics in runs if probe in metrics], 100, 2),
                _text([metrics[rank] for metrics in runs if rank in metrics], 1, 1),
            ]
        )
    note = "top-1; kNN: cosine, majority vote; best k chosen on the test set"
    if probe is not None:
        note += f"; probe: {probe.removeprefix('probe_top1_')}"
    if rank is not None:
        note += f"; effective rank of the top {rank.removeprefix('effective_rank_top')} eigenvalues"
    if any(len(runs) > 1 for runs in seeds.values()):
        note += "; mean ± sample standard deviation over seeds"
    return header, body, note + "."


def _ks(runs: Sequence[Metrics]) -> list[int]:
    return sorted({k for metrics in runs for k in knn_sweep(metrics)})


def _text(values: Sequence[float], factor: float, digits: int) -> str:
    if not values:
        return _MISSING
    mean, std = mean_std([factor * v for v in values])
    return f"{mean:.{digits}f}" if len(values) == 1 else f"{mean:.{digits}f} ± {std:.{digits}f}"
