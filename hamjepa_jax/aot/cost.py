"""A model of a training step's time on a slice: arithmetic, memory and links at their peak rates.

Assumed: a chip takes the longer of arithmetic at its peak rate and memory traffic at its peak rate; collectives
overlap with nothing, use all links of the slice at once in both directions, and wait HOP_SECONDS at every hop. Real
chips do not reach their peaks: the times show which of the three bounds a step, and how that changes with more
chips.
"""

from typing import NamedTuple

from hamjepa_jax.aot.chips import Slice
from hamjepa_jax.aot.collectives import Collective

HOP_SECONDS = 1e-6  # From a chip to its neighbour: jax-ml.github.io/scaling-book/sharding.


class StepTime(NamedTuple):
    """Seconds of a step: arithmetic, memory traffic and collectives."""

    compute: float
    memory: float
    links: float

    @property
    def total(self) -> float:
        """The longer of arithmetic and memory traffic, and the collectives after it."""
        return max(self.compute, self.memory) + self.links


def step_time(flops: float, hbm_bytes: float, collectives: list[Collective], on: Slice) -> StepTime:
    """The time of a step that does `flops` and moves `hbm_bytes` on each chip of the slice `on`."""
    links = sum(c.times * collective_seconds(c, on) for c in collectives)
    return StepTime(flops / on.chip.flops, hbm_bytes / on.chip.hbm_bandwidth, links)


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
