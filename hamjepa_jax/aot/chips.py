"""TPU chips by their published figures, and their slices."""

import math
import re
from typing import NamedTuple

from hamjepa_jax.errors import UserError

GIB = 2**30


class Chip(NamedTuple):
    """Attributes:
    flops: peak bfloat16 FLOP/s.
    hbm: bytes of memory that the compiler gives to a program.
    hbm_bandwidth: bytes/s.
    link_bandwidth: bytes/s of one link to a neighbour, in one direction.
    array_side, arrays: of its systolic arrays, each side × side; the number over all cores of the chip.
    """

    flops: float
    hbm: float
    hbm_bandwidth: float
    link_bandwidth: float
    array_side: int
    arrays: int

    @property
    def clock(self) -> float:
        """Cycles/s at which the arrays make up the peak: each multiplies and adds side² numbers in a cycle."""
        return self.flops / (2 * self.arrays * self.array_side**2)


# Compute, memory and interconnect: docs.cloud.google.com/tpu/docs/v4, …/v5e, …/v5p and …/v6e, key specifications.
# They give the interconnect per chip in both directions (v5e 400, v5p 1200, v6e 800 GB/s), here divided by the
# links (2 in each of 2 or 3 dimensions) and by 2; that of v4 is in arXiv 2304.01433, table 4: 6 links of 50 GB/s.
# The arrays stand in the same pages and jax-ml.github.io/scaling-book/tpus: 128×128, four in a core, two cores in a
# v4 and v5p; 256×256 in a v6e, of which four make up its peak at 1.75 GHz.
# `hbm` is the size that the compiler itself names as available, a little less than the chip has.
CHIPS = {
    "v4": Chip(275e12, 30.75 * GIB, 1200e9, 50e9, 128, 8),
    "v5e": Chip(197e12, 15.75 * GIB, 819e9, 50e9, 128, 4),
    "v5p": Chip(459e12, 95.74 * GIB, 2765e9, 100e9, 128, 8),
    "v6e": Chip(918e12, 31.25 * GIB, 1638e9, 100e9, 256, 4),
}
_PLANE = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
SLICES = {"v4": _CUBE, "v5e": _PLANE, "v5p": _CUBE, "v6e": _PLANE}  # 1, 4, 8, 16, 32, 64, 128 and 256 chips


class Slice(NamedTuple):
    """Chips that are linked as a grid: `kind` in CHIPS, `shape` the chips along each dimension."""

    kind: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.kind}:{'x'.join(map(str, self.shape))}"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def rings(self) -> tuple[bool, ...]:
        """Whether the links of each dimension close to a ring, else they are a line.

        v4 and v5p: in slices of whole 4×4×4 cubes; v5e and v6e: along a whole side of the pod, 16 chips.
        """
        if self.kind in ("v4", "v5p"):
            return (all(n % 4 == 0 for n in self.shape),) * len(self.shape)
        return tuple(n == 16 for n in self.shape)


def parse_slices(texts: list[str]) -> list[Slice]:
    """Slices named as in "v5e:4x4"; "v5e" alone is all of SLICES["v5e"].

    Raises:
      UserError: for a name that is neither.
    """
    slices = []
    for text in texts:
        kind, colon, shape = text.partition(":")
        if kind not in CHIPS or not re.fullmatch(
            r"[1-9]\d{0,3}(x[1-9]\d{0,3}){1,2}", shape or "" if colon else "1x1"
        ):
            raise UserError(f"--topology {text}: {accepted()}.")
        shapes = [shape] if colon else SLICES[kind]
        slices += [Slice(kind, tuple(map(int, s.split("x")))) for s in shapes]
    return slices


def accepted() -> str:
    """The slices there are, for messages."""
    return (
        f"give a chip and its grid, as v4 or v5p with one of {', '.join(_CUBE)}, or v5e or v6e with one of "
        f"{', '.join(_PLANE)} (such as v5e:4x4), or a chip alone for all of its slices"
    )
