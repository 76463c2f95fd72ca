"""The comparison table at the end of a run: one row per kind of features, one protocol per column."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence

from hamjepa_jax.report.read import select
from hamjepa_jax.report.significance import mean_std

Metrics = Mapping[str, float]
Rows = Mapping[str, Metrics | Sequence[Metrics]]

READOUT_NAMES = {"q": "q", "p": "p", "qp": "(q,p)", "z": "z"}
MISSING = "–"


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


def knn_protocol(keys: Iterable[str]) -> str | None:
    """The protocol of the first kNN key among one readout's, "cosine_majority" for example; None without kNN."""
    matches = (re.fullmatch(r"knn_top1_k\d+_(.+)", key) for key in keys)
    return next((match[1] for match in matches if match), None)


def knn_sweep(metrics: Metrics, protocol: str | None = None) -> dict[int, float]:
    """{k: top-1 accuracy} of one readout's metrics, ascending in k (see `evaluation.protocol` for the keys).

    Args:
      metrics: of one readout.
      protocol: which of them; the first met if None.
    """
    protocol = protocol or knn_protocol(metrics)
    found = {re.fullmatch(rf"knn_top1_k(\d+)_{re.escape(protocol or '')}", k): v for k, v in metrics.items()}
    return dict(sorted((int(match[1]), value) for match, value in found.items() if match))


def describe_knn(protocol: str) -> str:
    """ "cosine_softmax0.07_5shot" -> "cosine, softmax vote at temperature 0.07, 5 labelled examples a class"."""
    similarity, vote, *shots = protocol.split("_")
    kind = re.fullmatch(r"([a-z]+)([\d.e-]*)", vote)
    text = f"{similarity}, {kind[1]} vote" + (f" at temperature {kind[2]}" if kind[2] else "")
    return text + "".join(f", {s.removesuffix('shot')} labelled examples a class" for s in shots)


def rows_of(results: Mapping[str, Metrics | float]) -> dict[str, dict]:
    """Rows of the table of one metrics.json: one for each readout of each kind of features."""
    kinds = {"trained": "{}", "transformed": "H½ {}", "untrained": "untrained {}"}
    rows = {}
    for kind, metrics in results.items():
        if not isinstance(metrics, Mapping):
            continue
        for readout, shown in READOUT_NAMES.items():
            selected = select(metrics, readout)
            if selected:
                rows[kinds[kind].format(shown) if kind in kinds else _pixels(kind)] = selected
    return rows


def _pixels(kind: str) -> str:
    """ "pixels" -> "raw pixels", "pixels_32px" -> "pixels at 32 px"."""
    _, _, size = kind.partition("_")
    return f"pixels at {size.removesuffix('px')} px" if size else "raw pixels"


def _cells(rows: Rows, headline_k: int) -> tuple[list[str], list[list[str]], str]:
    """Header, rows of text, and the note on protocols."""
    seeds = {name: [runs] if isinstance(runs, Mapping) else list(runs) for name, runs in rows.items()}
    # Where rows were measured by several protocols (probes of several rates, say) a column shows the first one met,
    # and dashes for rows without it: numbers of different protocols never share a column.
    every_key = dict.fromkeys(key for runs in seeds.values() for metrics in runs for key in metrics)
    probe = next((key for key in every_key if key.startswith("probe_top1_")), None)
    rank = next((key for key in every_key if key.startswith("effective_rank_top")), None)
    protocol = knn_protocol(every_key)

    header = ["features", f"kNN@{headline_k} %", "best kNN % (k)", "probe %", "effective rank"]
    body = []
    for name, runs in seeds.items():
        sweeps = [knn_sweep(metrics, protocol) for metrics in runs] if protocol else []
        ks = sorted({k for sweep in sweeps for k in sweep})
        by_k = {k: [sweep[k] for sweep in sweeps if k in sweep] for k in ks}
        best_k = max(by_k, key=lambda k: statistics.mean(by_k[k]), default=None)
        body.append(
            [
                name,
                mean_text(by_k.get(headline_k, []), 100, 2),
                MISSING if best_k is None else f"{mean_text(by_k[best_k], 100, 2)} ({best_k})",
                mean_text([metrics[probe] for metrics in runs if probe in metrics], 100, 2),
                mean_text([metrics[rank] for metrics in runs if rank in metrics], 1, 1),
            ]
        )
    note = "top-1"
    if protocol is not None:
        note += f"; kNN: {describe_knn(protocol)}; best k chosen on the test set"
    if probe is not None:
        note += f"; probe: {probe.removeprefix('probe_top1_')}"
    if rank is not None:
        note += f"; effective rank of the top {rank.removeprefix('effective_rank_top')} eigenvalues"
    if any(len(runs) > 1 for runs in seeds.values()):
        note += "; mean ± sample standard deviation over seeds"
    return header, body, note + "."


def mean_text(values: Sequence[float], factor: float = 100, digits: int = 2) -> str:
    """ "31.45 ± 0.27" of several runs, "31.45" of one, a dash of none; each value times `factor`."""
    if not values:
        return MISSING
    mean, std = mean_std([factor * v for v in values])
    return f"{mean:.{digits}f}" if len(values) == 1 else f"{mean:.{digits}f} ± {std:.{digits}f}"
