"""The report of a compiled step: as text, as a line of a table, as JSON."""

import collections
from typing import NamedTuple

from hamjepa_jax.aot.chips import GIB
from hamjepa_jax.aot.collectives import KINDS, Collective
from hamjepa_jax.aot.cost import StepTime


class StepReport(NamedTuple):
    """Cost of a compiled step.

    Attributes:
      topology: name of the slice.
      chips: their number.
      batch_size: global.
      memory: bytes on each chip: "state", "images" and "batch" (the step's arguments), "padding" (of their
        layouts), "outputs" (that reuse no argument's memory), "temporaries", "program".
      hbm: bytes that a chip has.
      flops, hbm_bytes: of one step on each chip, by XLA's count.
      collectives: of one step.
      time: predicted.
    """

    topology: str
    chips: int
    batch_size: int
    memory: dict[str, int]
    hbm: float
    flops: float
    hbm_bytes: float
    collectives: list[Collective]
    time: StepTime

    @property
    def memory_total(self) -> int:
        return sum(self.memory.values())


def describe(report: StepReport) -> str:
    """The report of one slice as text."""
    lines = [
        f"{report.topology}: {report.chips} chips, {report.batch_size // report.chips} of {report.batch_size} "
        f"examples on each",
        "",
        f"{'memory on each chip':<24}{'MB':>12}",
    ]
    lines += [f"  {name:<22}{size / 1e6:>12,.1f}" for name, size in report.memory.items()]
    share = report.memory_total / report.hbm
    lines += [
        f"  {'all':<22}{report.memory_total / 1e6:>12,.1f}  {share:.1%} of {report.hbm / GIB:.2f} GiB",
        "",
        f"a step on each chip: {report.flops / 1e9:,.1f} GFLOP, {report.hbm_bytes / 1e9:,.2f} GB of memory traffic",
        "",
        f"{'collectives':<24}{'number':>8}{'MB':>12}  largest",
    ]
    for kind in KINDS:
        found = [c for c in report.collectives if c.kind == kind]
        if found:
            largest = max(found, key=lambda c: c.bytes * c.times)
            total = sum(c.bytes * c.times for c in found)
            lines.append(f"  {kind:<22}{sum(c.times for c in found):>8}{total / 1e6:>12,.2f}  {largest.source}")
    t = report.time
    lines += [
        "",
        f"predicted: {t.total * 1e3:.2f} ms a step at peak rates, {report.batch_size / t.total:,.0f} images/s; the "
        f"longer of {t.compute * 1e3:.2f} ms (arithmetic) and {t.memory * 1e3:.2f} ms (memory), and "
        f"{t.links * 1e3:.2f} ms (collectives)",
    ]
    return "\n".join(lines)


HEADER = """\
| slice | batch | memory a chip | GFLOP a chip | traffic a chip | collectives | arithmetic | traffic | links | step | efficiency |
|---|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


def table_row(report: StepReport, base: StepReport) -> str:
    """A line of the table; efficiency is in images/s a chip, beside `base`'s."""
    t, speeds = report.time, [r.batch_size / r.chips / r.time.total for r in (report, base)]
    number = sum(c.times for c in report.collectives)
    exchanged = sum(c.bytes * c.times for c in report.collectives)
    cells = [
        report.topology,
        f"{report.batch_size:,}",
        f"{report.memory_total / 1e9:.2f} GB",
        f"{report.flops / 1e9:,.0f}",
        f"{report.hbm_bytes / 1e9:.1f} GB",
        f"{number}, {exchanged / 1e6:,.1f} MB",
        *(f"{seconds * 1e3:.2f} ms" for seconds in (t.compute, t.memory, t.links, t.total)),
        f"{speeds[0] / speeds[1]:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def as_json(report: StepReport) -> dict:
    """The report as a JSON object, its collectives summed by kind."""
    by_kind = collections.defaultdict(lambda: {"number": 0, "bytes": 0})
    for c in report.collectives:
        by_kind[c.kind]["number"] += c.times
        by_kind[c.kind]["bytes"] += c.bytes * c.times
    seconds = report.time._asdict() | {"total": report.time.total}
    return report._asdict() | {"collectives": by_kind, "time": seconds}
