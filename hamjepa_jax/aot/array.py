"""How far the convolutions of a compiled program fill the systolic array, estimated from their shapes.

A convolution is a product of matrices for each position of its window: numbers of the image's channels are
summed, and the result is rows by lanes. The array holds `side` of the summed numbers by `side` of the lanes, and
takes 8 rows at a time; the rest of the last tile in each is idle. The lanes are the dimension of the result that
varies fastest in its layout. So 64 channels, summed or as the lanes, fill half of an array of side 128. Channels
fewer than 8, as of an image's colours, are summed together with a row of the window, as the compiler packs them.
A fusion's other work, which can take longer, does not count.
"""

import math
import re
from typing import NamedTuple

from hamjepa_jax.aot.hlo import Array, Instruction, Program, arrays_of

_SUBLANES = 8
_PASSES = {"highest": 6, "high": 3}  # Products of bfloat16 parts that make one of float32 at this precision.


class Convolution(NamedTuple):
    """Attributes:
    times: its runs in a step.
    flops: of all of them; positions of the window outside the image or in the gaps of a dilated one do not count.
    summed, lanes, rows: sizes of its matrices, see the top of this module.
    passes: products of bfloat16 for each of its own.
    """

    times: int
    flops: int
    summed: int
    lanes: int
    rows: int
    passes: int

    def use(self, side: int) -> float:
        """Share of the array's multiplications that count."""
        return _fill(self.summed, side) * _fill(self.lanes, side) * _fill(self.rows, _SUBLANES) / self.passes


def find_convolutions(program: Program) -> list[Convolution]:
    """The convolutions of a program, inside fusions too; TPU compilers make them of all products of matrices."""
    times, found = program.times(inside_fusions=True), []
    for name, computation in program.computations.items():
        types = {i.name: i.type for i in computation}
        for i in computation:
            if i.opcode == "convolution" and times[name]:
                found.append(_convolution(i, [arrays_of(types[o])[0] for o in i.operands], times[name]))
    return found


def total_flops(counted: float, convolutions: list[Convolution], accumulation: int) -> float:
    """FLOPs of a step from XLA's count, which takes the body of a loop once.

    Of other work than convolutions the loop over micro-batches alone counts, which holds all but the update.
    """
    rest = max(0.0, counted - sum(c.flops / c.times for c in convolutions))
    return accumulation * rest + sum(c.flops for c in convolutions)


def array_seconds(flops: float, convolutions: list[Convolution], peak: float, side: int) -> float:
    """Seconds of `flops` FLOPs at `peak` FLOP/s, slowed where the convolutions among them leave the array idle."""
    rest = max(0.0, flops - sum(c.flops for c in convolutions))
    return (rest + sum(c.flops / c.use(side) for c in convolutions)) / peak


def _fill(size: int, side: int) -> float:
    return size / (-(-size // side) * side)


def _convolution(i: Instruction, operands: list[Array], times: int) -> Convolution:
    image, kernel = operands
    (result,) = i.arrays
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes).groups()
    summed = kernel.dims[labels[1].index("i")]
    window = _window(i.attributes)
    pairs = 1
    for position, place in enumerate(sorted(set(labels[0]) - set("bf"))):
        sizes = (image.dims[labels[0].index(place)], result.dims[labels[2].index(place)])
        pairs *= _pairs(*sizes, {name: values[position] for name, values in window.items()})
    images, features = (result.dims[labels[2].index(label)] for label in "bf")
    order = [*result.order, *range(len(result.dims))]
    precision = re.search(r"operand_precision=\{(\w+)", i.attributes)
    row = int(window["size"][-1]) if "size" in window else 1
    return Convolution(
        times=times,
        flops=times * 2 * pairs * images * features * summed,
        summed=summed * (row if summed < _SUBLANES else 1),
        lanes=result.dims[order[0]],
        rows=math.prod(result.dims) // result.dims[order[0]],
        passes=_PASSES.get(precision[1], 1) if precision else 1,
    )


def _window(attributes: str) -> dict[str, list[str]]:
    """{name: its value for each dimension} of "window={size=3x3 pad=1_1x1_1}"; {} without a window."""
    written = re.search(r"window=\{([^}]*)\}", attributes)
    return {name: text.split("x") for name, text in (p.split("=") for p in written[1].split())} if written else {}


def _pairs(size: int, result: int, window: dict[str, str]) -> int:
    """Pairs of a place in the result and a position of the window that meet on a number of the image."""
    stride, spread, gap = (int(window.get(name, 1)) for name in ("stride", "lhs_dilate", "rhs_dilate"))
    before = int(window.get("pad", "0_0").split("_")[0])
    last = (size - 1) * spread
    places = (o * stride + w * gap - before for o in range(result) for w in range(int(window.get("size", 1))))
    return sum(0 <= place <= last and place % spread == 0 for place in places)
