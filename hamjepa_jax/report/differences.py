"""Methods against each other over the seeds that both have: numbers, a table and a figure."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from hamjepa_jax.report import method_plots, page
from hamjepa_jax.report.finished import FinishedRun
from hamjepa_jax.report.headline import headline_title
from hamjepa_jax.report.significance import paired_t_test
from hamjepa_jax.report.tables import MISSING, READOUT_NAMES, signed

Runs = Mapping[str, Sequence[FinishedRun]]
MOST_SHOWN = 4  # Of so many methods the page shows every pair.


def paired_differences(runs: Runs, headline: Mapping[str, str]) -> list[dict]:
    """Each method against each later one, readout by readout, over the seeds that both have."""
    found, methods = [], list(runs)
    for i, one in enumerate(methods):
        for other in methods[i + 1 :]:
            mine, theirs = ({run.seed: run.readouts() for run in runs[m]} for m in (one, other))
            seeds = sorted(mine.keys() & theirs.keys())
            for readout in mine[seeds[0]] if seeds else ():
                # The whole state of a method without q and p is compared with each readout.
                whole = "z" if "z" in theirs[seeds[0]] else "qp"
                partner = readout if readout in theirs[seeds[0]] else whole
                for kind, key in headline.items():
                    a = [100 * mine[s][readout][key] for s in seeds]
                    b = [100 * theirs[s][partner][key] for s in seeds]
                    test = paired_t_test(a, b) if len(seeds) > 1 else {"difference": a[0] - b[0]}
                    what = {"method": one, "readout": readout, "against": other, "its_readout": partner}
                    by_seed = {"seeds": seeds, "by_seed": [x - y for x, y in zip(a, b, strict=True)]}
                    found.append(what | {"metric": headline_title(kind, headline)} | by_seed | test)
    return found


def difference_blocks(
    differences: Sequence[Mapping],
    runs: Runs,
    headline: Mapping[str, str],
    names: Mapping[str, str],
    folder: pathlib.Path,
) -> list[page.Block]:
    """The differences as a table, and those from the first method as a figure, folder/differences.png.

    With one data set the seeds are what repeats, so the figure shows paired differences over them. A diagram of
    critical differences ranks methods over many data sets, and would have a sample of one here.

    Args:
      differences: of `paired_differences`.
      runs: what they are of.
      headline: the accuracies that were measured.
      names: {method: its name in the report}.
      folder: of the figures.
    """
    if not differences:
        return [page.Text(f"{_why_none(runs, headline)}: there is nothing to compare.")]
    reference = next(iter(runs))
    of_reference = [d for d in differences if d["method"] == reference]
    many = bool(of_reference) and len(runs) > MOST_SHOWN
    shown = of_reference if many else differences
    header = ["difference", "of", "points", "95% interval", "t (dof)", "p", "seeds"]
    note = (
        "Points of top-1 accuracy. Two-sided paired t-test and 95% confidence interval over the seeds that both "
        "have; p is not corrected for the number of comparisons."
    )
    if any("p" not in d for d in differences):
        note += " With a single seed there is no test."
    if many:
        note += f" The table has the differences of {names[reference]}; results.json has those of every pair."
    rows = [_row(d, names) for d in shown]
    return [page.Text(note), *_figure(shown, names, reference, folder), page.Table(header, rows, text_columns=2)]


def _why_none(runs: Runs, headline: Mapping[str, str]) -> str:
    if len(runs) == 1:
        return "One method only"
    return "No two methods have a seed in common" if headline else "No accuracy was measured"


def _figure(
    differences: Sequence[Mapping], names: Mapping[str, str], reference: str, folder: pathlib.Path
) -> list[page.Block]:
    """The other methods minus the reference's first readout: the whole state, or q of a method that has it."""
    of_reference = [d for d in differences if d["method"] == reference]
    if not of_reference:
        return []
    readout = of_reference[0]["readout"]
    panels: dict[str, dict[str, dict]] = {}
    for d in of_reference:
        if d["readout"] == readout:
            other = f"{names[d['against']]} {READOUT_NAMES[d['its_readout']]}"
            panels.setdefault(d["metric"], {})[other] = turned(d) | {"by_seed": [-x for x in d["by_seed"]]}
    subject = f"{names[reference]} {READOUT_NAMES[readout]}"
    method_plots.differences_figure(panels, subject, folder / "differences.png")
    return [
        page.Figure(
            folder / "differences.png",
            f"Differences from {subject}, paired by seed: means with 95% confidence intervals, dots the seeds.",
        )
    ]


def turned(d: Mapping) -> dict[str, Any]:
    """The difference the other way round, with its interval if it has one."""
    return {"difference": -d["difference"]} | ({"low": -d["high"], "high": -d["low"]} if "p" in d else {})


def interval(d: Mapping) -> str:
    """The confidence interval of a difference."""
    return f"[{signed(d['low'])}, {signed(d['high'])}]"


def _row(d: Mapping, names: Mapping[str, str]) -> list[str]:
    one = f"{names[d['method']]} {READOUT_NAMES[d['readout']]}"
    other = f"{names[d['against']]} {READOUT_NAMES[d['its_readout']]}"
    row = [f"{one} − {other}", d["metric"], signed(d["difference"])]
    if "p" in d:
        row += [interval(d), f"{signed(d['t'])} ({d['dof']})", p_text(d["p"])]
    else:
        row += [MISSING] * 3
    return [*row, str(len(d["seeds"]))]


def p_text(p: float) -> str:
    """ "0.0123", or "< 0.0001"."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"
