"""The text of a compiled program, read: its computations, their instructions, and how often a run runs each."""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # others have theirs in the name: f32, s8, u4, f8e4m3


class Array(NamedTuple):
    """An array in a type: `layout` is as XLA writes it, "1,0:T(8,128)S(1)", or ""."""

    dtype: str
    dims: tuple[int, ...]
    layout: str

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return _bits(self.dtype) * math.prod(self.dims) // 8

    @property
    def padded(self) -> int:
        """Bytes in memory: the dimensions that vary fastest are rounded up to the layout's tile."""
        dims, order = list(self.dims), self.order
        tile = re.search(r":T\(([\d,]+)\)", self.layout)
        sides = [int(n) for n in tile[1].split(",")] if tile else []
        for dim, side in zip(order, reversed(sides), strict=False):
            dims[dim] = -(-dims[dim] // side) * side
        return _bits(self.dtype) * math.prod(dims) // 8

    @property
    def order(self) -> list[int]:
        """The dimensions, the one that varies fastest first."""
        written = re.match(r"[\d,]+", self.layout)
        return [int(n) for n in written[0].split(",")] if written else list(range(len(self.dims)))[::-1]

    @property
    def in_memory(self) -> bool:
        """Whether it lies in the chip's main memory; S(1), S(2)… are others: on-chip memory, flags, the host."""
        return not re.search(r"S\([1-9]\d*\)", self.layout)


class Instruction(NamedTuple):
    """`type` and `attributes` are text, and `operands` the names of other instructions of the computation."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool
    text: str

    @property
    def arrays(self) -> list[Array]:
        """All arrays in the type, those inside tuples too."""
        return arrays_of(self.type)

    @property
    def calls(self) -> list[str]:
        """Names of the computations that it runs; those that a reduction applies to pairs are not."""
        found = "".join(
            m[2] for m in _CALLS.finditer(self.attributes) if m[1] != "to_apply" or self.opcode == "call"
        )
        return re.findall(r"%([\w.\-]+)", found)


class Program(NamedTuple):
    """`computations`: {name: its instructions}; `entry`: the name of the one that is run."""

    computations: dict[str, list[Instruction]]
    entry: str

    def times(self, *, inside_fusions: bool) -> collections.Counter:
        """How often a run runs each computation.

        Loops multiply by their trips, where the text shows the number, else by 1; both branches of a conditional
        count.
        """
        times: collections.Counter = collections.Counter()

        def visit(name: str, count: int) -> None:
            times[name] += count
            for i in self.computations[name]:
                if i.opcode == "fusion" and not inside_fusions:
                    continue
                trips = _trips(i, self.computations) if i.opcode == "while" else 1
                for called in i.calls:
                    if called in self.computations:
                        visit(called, count * trips)

        visit(self.entry, 1)
        return times

    def fused(self) -> set[str]:
        """Names of the computations that fusions run."""
        return {called for i in self.instructions() if i.opcode == "fusion" for called in i.calls}

    def instructions(self) -> Iterator[Instruction]:
        for computation in self.computations.values():
            yield from computation


def parse(hlo: str) -> Program:
    """The program of `jax.stages.Compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = None, ""
    for line in hlo.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if header:
            current = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif current is not None and (instruction := _instruction(line)):
            current.append(instruction)
    return Program(computations, entry)


def arrays_of(text: str) -> list[Array]:
    """The arrays in a type's text."""
    found = _ARRAY.findall(text)
    return [Array(dtype, tuple(int(n) for n in dims.split(",") if n), layout) for dtype, dims, layout in found]


_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_CALLS = re.compile(
    r"(body|condition|calls|to_apply|branch_computations|(?:true|false)_computation)=(\{[^}]*\}|%[\w.\-]+)"
)
_START = re.compile(r"\s*(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = ")
_OPCODE = re.compile(r"\s*(?P<opcode>[\w\-]+)\(")


def _instruction(line: str) -> Instruction | None:
    start = _START.match(line)
    if start is None:
        return None
    rest = line[start.end() :]
    end = _closing(rest, 0) if rest.startswith("(") else re.match(r"\S*", rest).end()
    opcode = _OPCODE.match(rest, end)
    if opcode is None:
        return None
    close = _closing(rest, opcode.end() - 1)
    operands = tuple(re.findall(r"%([\w.\-]+)", rest[opcode.end() : close]))
    return Instruction(
        start["name"], rest[:end], opcode["opcode"], operands, rest[close:], bool(start["root"]), line
    )


def _closing(text: str, opening: int) -> int:
    """The place after the bracket that closes the one at `opening`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.end()
    return len(text)


def _trips(loop: Instruction, computations: dict[str, list[Instruction]]) -> int:
    """Trips of a while loop: as XLA notes them, or the bound of a counter from 0; 1 if neither is there."""
    noted = re.search(r"known_trip_count\D*(\d+)", loop.attributes)
    if noted:
        return int(noted[1])
    condition = computations.get(re.search(r"condition=%([\w.\-]+)", loop.attributes)[1], [])
    constants = [i.text for i in condition if i.opcode == "constant" and i.type.startswith("s32[]")]
    bounds = [int(n) for text in constants for n in re.findall(r" constant\((\d+)\)", text)]
    return bounds[0] if len(bounds) == 1 and any("direction=LT" in i.attributes for i in condition) else 1


def _bits(dtype: str) -> int:
    return BITS.get(dtype) or int(re.match(r"[a-z]+(\d+)", dtype)[1])
