"""How well measures that need no labels foretell accuracy: over checkpoints of a run, and over runs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hamjepa_jax.metrics import keys, scores
from hamjepa_jax.report import page
from hamjepa_jax.report.finished import FinishedRun, readouts_of
from hamjepa_jax.report.logs import select
from hamjepa_jax.report.significance import spearman
from hamjepa_jax.report.tables import MISSING, READOUT_NAMES, markdown_rows

WHOLE = "(q,p) or z"
FEWEST = 3  # Points that a correlation is stated for.
HEADER = ["readout", "measure", "against", "Spearman", "Kendall", "accuracy of its choice", "best", "points"]

Metrics = Mapping[str, float]


class Agreement(NamedTuple):
    """One measure against one accuracy of one readout.

    Attributes:
      readout: q, p, qp or z.
      measure: printed key.
      accuracy: printed key.
      spearman: rank correlation of the measure's score with the accuracy; NaN if either is the same everywhere.
      kendall: τ-b, likewise.
      picked: accuracy where the score is highest; of equal scores the first counts.
      best: highest accuracy.
      points: checkpoints or runs.
    """

    readout: str
    measure: str
    accuracy: str
    spearman: float
    kendall: float
    picked: float
    best: float
    points: int


def agreements(points: Sequence[Mapping[str, Metrics]]) -> list[Agreement]:
    """Every label-free measure against every accuracy, for the readouts that all points have.

    Args:
      points: {readout: its metrics} of each checkpoint or run, in their order.

    Returns:
      Nothing for fewer than three points.
    """
    if len(points) < FEWEST:
        return []
    found = []
    for readout in (name for name in points[0] if all(name in point for point in points)):
        metrics = [point[readout] for point in points]
        shared = [key for key in metrics[0] if all(_is_number(m.get(key)) for m in metrics)]
        for measure, score in _measures(shared):
            ordinates = [score(m[measure]) for m in metrics]
            for accuracy in _accuracies(shared):
                found.append(_agreement(readout, measure, ordinates, accuracy, [m[accuracy] for m in metrics]))
    return found


def checkpoints_of(history: Sequence[Mapping]) -> list[dict[str, Metrics]]:
    """{readout: metrics} of every evaluation in a run's log (metrics.jsonl), by ascending step."""
    by_step = {}
    for record in history:
        if readouts := readouts_of(select(record, "eval")):
            by_step[record["step"]] = readouts
    return [by_step[step] for step in sorted(by_step)]


def label_free_blocks(runs: Mapping[str, Sequence[FinishedRun]], what: str) -> list[page.Block]:
    """The blocks of a report: over the checkpoints of the first run, and over all runs.

    Args:
      runs: {name: runs}.
      what: the names are of: "method" or "cell".
    """
    every = [run for of_name in runs.values() for run in of_name]
    (name, (first, *_)), *_ = runs.items()
    over = {
        f"over the checkpoints of {name}, seed {first.seed}": checkpoints_of(first.history),
        f"over the runs of every {what}": _comparable([run.readouts() for run in every]),
    }
    found = {title: agreements(points) for title, points in over.items()}
    if not any(found.values()):
        return []
    note = (
        "Rank correlation of measures that need no labels with the accuracies, and the accuracy of the checkpoint "
        "or run that the measure alone would have chosen, in per cent. Of α-ReQ the score is the distance of α "
        "from 1, negative; of the others the number itself."
    )
    blocks = [page.Heading("Measures without labels"), page.Text(note)]
    for title, rows in found.items():
        if rows:
            blocks += [page.Text(f"{title[0].upper()}{title[1:]}:"), page.Table(HEADER, table_rows(rows), 3)]
    return blocks


def label_free_text(points: Sequence[Mapping[str, Metrics]]) -> str:
    """The table over a run's checkpoints as Markdown for a text file; "" for fewer than three checkpoints."""
    rows = table_rows(agreements(points))
    rule = [":--"] * 3 + ["--:"] * (len(HEADER) - 3)
    return "\n".join(markdown_rows([HEADER, rule, *rows])) + "\n" if rows else ""


def _comparable(runs: list[dict[str, Metrics]]) -> list[dict[str, Metrics]]:
    """The same where runs share a readout; else the whole state of each, which some split into q and p."""
    if any(all(name in run for run in runs) for name in runs[0]):
        return runs
    return [{WHOLE: run.get("z") or run.get("qp", {})} for run in runs]


def table_rows(found: Sequence[Agreement]) -> list[list[str]]:
    """Cells below HEADER."""
    return [
        [
            READOUT_NAMES.get(a.readout, a.readout),
            a.measure,
            _title(a.accuracy),
            *(MISSING if math.isnan(r) else f"{r:+.2f}".replace("-", "−") for r in (a.spearman, a.kendall)),
            f"{100 * a.picked:.2f}",
            f"{100 * a.best:.2f}",
            str(a.points),
        ]
        for a in found
    ]


def _agreement(
    readout: str, measure: str, ordinates: Sequence[float], accuracy: str, accuracies: Sequence[float]
) -> Agreement:
    from scipy import stats  # Slow to import.

    varied = len(set(ordinates)) > 1 and len(set(accuracies)) > 1
    kendall = float(stats.kendalltau(ordinates, accuracies).statistic) if varied else math.nan
    picked = accuracies[max(range(len(ordinates)), key=ordinates.__getitem__)]
    rank = spearman(ordinates, accuracies)
    return Agreement(readout, measure, accuracy, rank, kendall, picked, max(accuracies), len(accuracies))


def _measures(shared: Sequence[str]) -> Iterator:
    """(printed key, its score) of the label-free measures among the keys."""
    by_quantity = scores()
    for text in shared:
        if (quantity := keys.parse(text).quantity) in by_quantity:
            yield text, by_quantity[quantity]


def _accuracies(shared: Sequence[str]) -> list[str]:
    """The keys of the kNN at k = 20, or at the largest k, and of the first probe."""
    sweep = {keys.parse(text).protocol.k: text for text in shared if _is_knn(text)}
    knn = sweep[keys.headline_k(sweep)] if sweep else None
    return [text for text in (knn, keys.first(shared, "probe_top1")) if text is not None]


def _is_knn(text: str) -> bool:
    key = keys.parse(text)
    return key.quantity == "knn_top1" and isinstance(key.protocol, keys.Knn)


def _title(accuracy: str) -> str:
    protocol = keys.parse(accuracy).protocol
    return f"kNN@{protocol.k}" if isinstance(protocol, keys.Knn) else "probe"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
