"""The report of a compiled step: as text and as JSON."""

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
      memory: bytes on each chip: "state", "images" and "batch" with the seed (the step's arguments), "padding" (of
        their layouts), "outputs" (that reuse no argument's memory), "temporaries", "program".
      hbm: bytes that a chip has.
      flops: of one step on each chip, by XLA's count.
      traffic: bytes that each chip reads from and writes to memory, by kind (`traffic.KINDS`).
      collectives: of one step.
      time: predicted.
    """

    topology: str
    chips: int
    batch_size: int
    memory: dict[str, int]
    hbm: float
    flops: float
    traffic: dict[str, int]
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
        f"a step on each chip: {report.flops / 1e9:,.1f} GFLOP, {sum(report.traffic.values()) / 1e9:,.2f} GB of "
        f"memory traffic ({', '.join(f'{kind} {size / 1e9:.2f}' for kind, size in report.traffic.items())})",
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
        f"predicted: {t.least * 1e3:.2f} to {t.most * 1e3:.2f} ms a step, {report.batch_size / t.most:,.0f} to "
        f"{report.batch_size / t.least:,.0f} images/s",
        f"  arithmetic        {t.compute * 1e3:.2f} ms at the peak rate, {t.array * 1e3:.2f} ms with the systolic "
        f"array as full as the shapes let it be",
        f"  memory traffic    {t.memory * 1e3:.2f} ms at the peak rate",
        f"  collectives       {t.links * 1e3:.2f} ms",
        f"  whole schedule    {t.schedule * 1e3:.2f} ms by the compiler's estimate, without collectives",
        "at least the longer of arithmetic and traffic at their peaks; at most both, with the array's idle part, "
        "or the compiler's estimate; collectives are added to either",
    ]
    return "\n".join(lines)


def as_json(report: StepReport) -> dict:
    """The report as a JSON object, its collectives summed by kind."""
    by_kind = collections.defaultdict(lambda: {"number": 0, "bytes": 0})
    for c in report.collectives:
        by_kind[c.kind]["number"] += c.times
        by_kind[c.kind]["bytes"] += c.bytes * c.times
    seconds = report.time._asdict() | {"least": report.time.least, "most": report.time.most}
    return report._asdict() | {"collectives": by_kind, "time": seconds}
