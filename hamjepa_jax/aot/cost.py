"""A model of a training step's time on a slice: arithmetic, memory and links at their peak rates.

A range. At least, a chip takes the longer of arithmetic at its peak rate and memory traffic at its peak rate. At
most, it takes the arithmetic, slowed where convolutions leave the systolic array idle, and then the traffic; or
what the compiler estimates for its schedule, with the vector unit's work, if that is longer. In both, collectives
overlap with nothing, use all links of the slice at once in both directions, and wait HOP_SECONDS at every hop. The
times show what bounds a step, and how that changes with more chips; they are predictions, not measurements.
"""

from typing import NamedTuple

from hamjepa_jax.aot.array import Convolution, array_seconds
from hamjepa_jax.aot.chips import Slice
from hamjepa_jax.aot.collectives import Collective
from hamjepa_jax.aot.cycles import scheduled_cycles
from hamjepa_jax.aot.hlo import Program

HOP_SECONDS = 1e-6  # From a chip to its neighbour: jax-ml.github.io/scaling-book/sharding.


class StepTime(NamedTuple):
    """Seconds of a step on a chip.

    Attributes:
      compute: arithmetic at the peak rate.
      array: arithmetic, with the systolic array as full as the convolutions' shapes let it be.
      schedule: the compiler's estimate, 0 where it has none.
      memory: memory traffic at the peak rate.
      links: collectives.
    """

    compute: float
    array: float
    schedule: float
    memory: float
    links: float

    @property
    def least(self) -> float:
        return max(self.compute, self.memory) + self.links

    @property
    def most(self) -> float:
        return max(self.array + self.memory, self.schedule) + self.links


def step_time(
    flops: float,
    program: Program,
    convolutions: list[Convolution],
    traffic: dict[str, int],
    collectives: list[Collective],
    on: Slice,
) -> StepTime:
    """The time of a step that does `flops` and moves `traffic`, bytes by kind, on each chip of the slice `on`."""
    chip = on.chip
    return StepTime(
        compute=flops / chip.flops,
        array=array_seconds(flops, convolutions, chip.flops, chip.array_side),
        schedule=scheduled_cycles(program) / chip.clock,
        memory=sum(traffic.values()) / chip.hbm_bandwidth,
        links=sum(c.times * collective_seconds(c, on) for c in collectives),
    )


def collective_seconds(collective: Collective, on: Slice) -> float:
    """Seconds of one collective on the slice.

    Over n chips with L usable links of W bytes/s each, reduce-scatter and all-gather of V bytes take
    V·(n−1)/n/(L·W), an all-reduce both. A dimension whose links close to a ring has 2 usable links, a line 1: the
    chips at its ends have no other. An all-to-all is bound by the links across the middle of the longest dimension,
    m chips long: V·m/8/W on a ring, V·m/4/W on a line. A permutation goes to neighbours. Each also waits for the
    hops of the longest way. A group smaller than the slice is taken for a line of chips.
    """
    n, kind = collective.group, collective.kind
    if n == 1:
        return 0.0
    dimensions = [(m, ring) for m, ring in zip(on.shape, on.rings, strict=True) if m > 1]
    if n != on.size:
        dimensions = [(n, False)]
    bandwidth = sum(1 + ring for _, ring in dimensions) * on.chip.link_bandwidth
    hops = sum(m // 2 if ring else m - 1 for m, ring in dimensions)
    one_way = collective.bytes * (n - 1) / n / bandwidth + hops * HOP_SECONDS
    if kind == "all-reduce":
        return 2 * one_way
    if kind == "all-to-all":
        longest, ring = max(dimensions)
        return collective.bytes * longest / (8 if ring else 4) / on.chip.link_bandwidth + hops * HOP_SECONDS
    if kind == "collective-permute":
        return collective.bytes / on.chip.link_bandwidth + HOP_SECONDS
    return one_way
