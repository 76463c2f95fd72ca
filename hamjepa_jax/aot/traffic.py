"""Memory traffic of a compiled program, counted from its schedule.

XLA's own count takes on-chip buffers for memory, and a prefetched slice for the whole array. Here every instruction
that is run moves its operands and its result, as they are padded in memory, if they lie there; a slice moves the
slice, an update in place what it updates. An operand counts once for each instruction: a large product that has to
read one twice moves more.
"""

import collections
from collections.abc import Iterator

from hamjepa_jax.aot.hlo import Array, Instruction, Program

KINDS = ("operations", "copies", "slices", "collectives")
Computation = dict[str, Instruction]


def count_traffic(program: Program) -> dict[str, int]:
    """Bytes that a run reads from and writes to memory, by kind of instruction, one of KINDS.

    Copies and slices are instructions of their own; those inside a fusion are part of its operation.
    """
    named = {name: {i.name: i for i in computation} for name, computation in program.computations.items()}
    traffic = collections.Counter(dict.fromkeys(KINDS, 0))
    for name, times in program.times(inside_fusions=False).items():
        for i in program.computations[name]:
            traffic[_kind(i)] += times * _moved(i, named[name], named)
    return dict(traffic)


_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "conditional", "call",
    "async-start", "async-update", "async-done", "optimization-barrier", "add-dependency", "partition-id",
    "replica-id",
}  # fmt: skip
_FREE_CALLS = ("ConcatBitcast", "AllocateBuffer", "AssumeGatherIndicesInBound")  # Names for memory, without work.
_RENAMES = ("bitcast", "reshape", "get-tuple-element")
_SLICES = ("slice", "dynamic-slice", "gather")


def _kind(i: Instruction) -> str:
    opcode = i.opcode.removesuffix("-start")
    if opcode == "copy":
        return "copies"
    if opcode in (*_SLICES, "dynamic-update-slice"):
        return "slices"
    return "collectives" if opcode.startswith(("all-", "reduce-scatter", "collective-")) else "operations"


def _moved(i: Instruction, computation: Computation, named: dict[str, Computation]) -> int:
    """Bytes of one run of an instruction."""
    if i.opcode in _FREE or i.opcode.endswith("-done") or any(f'"{name}"' in i.attributes for name in _FREE_CALLS):
        return 0
    operands = [computation[name] for name in i.operands if name in computation]
    if i.opcode in ("copy-start", "all-gather-start", "collective-permute-start"):
        return sum(map(_bytes, i.arrays))  # (operand, result, flags), in this order or the other
    if i.opcode.endswith("slice-start"):  # ((operands), result, flag)
        part = i.arrays[-2]
        return _bytes(part) + (part.padded if _all_in_memory(operands[0]) else 0)
    if i.opcode == "fusion" and i.calls[0] in named:
        inside = named[i.calls[0]]
        read = sum(
            _read(p, operands[_number(p)], inside, named) for p in inside.values() if p.opcode == "parameter"
        )
        return read + _written(_root(inside), i.arrays, inside, named)
    if i.opcode in _SLICES:
        part = sum(a.padded for a in i.arrays)
        indices = sum(_bytes(a) for o in operands[1:] for a in o.arrays)
        return sum(map(_bytes, i.arrays)) + (part if _all_in_memory(operands[0]) else 0) + indices
    if i.opcode in ("dynamic-update-slice", "scatter"):
        update = operands[-1] if i.opcode == "scatter" else operands[1]
        part = sum(a.padded for a in update.arrays)
        return sum(map(_bytes, update.arrays)) + (part if _all_in_memory(i) else 0)
    return sum(_bytes(a) for x in (i, *operands) for a in x.arrays)


def _bytes(array: Array) -> int:
    return array.padded if array.in_memory else 0


def _all_in_memory(i: Instruction) -> bool:
    return all(a.in_memory for a in i.arrays)


def _number(parameter: Instruction) -> int:
    return int(parameter.text.split(" parameter(")[1].split(")")[0])


def _root(computation: Computation) -> Instruction:
    return next(i for i in computation.values() if i.is_root)


def _read(parameter: Instruction, operand: Instruction, inside: Computation, named: dict[str, Computation]) -> int:
    """Bytes that a fusion reads of an operand: the whole, or what the slices inside take of it."""
    if not _all_in_memory(operand):
        return 0
    whole = sum(a.padded for a in operand.arrays)
    parts = [_part(user, place) for user, place in _users(parameter, inside, named)]
    return whole if None in parts else min(whole, sum(parts))


def _users(
    value: Instruction, inside: Computation, named: dict[str, Computation]
) -> Iterator[tuple[Instruction, int]]:
    """The instructions that work with a value and its place among their operands, through names and inner fusions.

    The root of the computation, which whoever runs it works with, comes as itself at the place −1.
    """
    if value.is_root:
        yield value, -1
    for user in inside.values():
        for place in (n for n, name in enumerate(user.operands) if name == value.name):
            if user.opcode == "fusion":
                within = named[user.calls[0]]
                inner = next(p for p in within.values() if p.opcode == "parameter" and _number(p) == place)
                for found in _users(inner, within, named):
                    yield from [found] if found[1] >= 0 else _users(user, inside, named)
            elif user.opcode in _RENAMES:
                yield from _users(user, inside, named)
            else:
                yield user, place


def _part(user: Instruction, place: int) -> int | None:
    """Bytes that an instruction takes of its operand at a place; None for the whole."""
    if place == 0 and user.opcode in _SLICES:
        return sum(a.padded for a in user.arrays)
    if place == 0 and user.opcode in ("dynamic-update-slice", "scatter"):
        return 0
    return None


def _written(value: Instruction, arrays: list[Array], inside: Computation, named: dict[str, Computation]) -> int:
    """Bytes that a fusion writes for a value of its root, whose place in memory `arrays` has: an update in place
    writes what it updates."""
    if value.opcode == "tuple":
        values = [inside[name] for name in value.operands]
        return sum(_written(v, [a], inside, named) for v, a in zip(values, arrays, strict=True))
    if not all(a.in_memory for a in arrays):
        return 0
    if value.opcode in _RENAMES and value.operands[0] in inside:
        return _written(inside[value.operands[0]], arrays, inside, named)
    if value.opcode == "fusion" and value.calls[0] in named:
        within = named[value.calls[0]]
        return _written(_root(within), arrays, within, named)
    if value.opcode in ("dynamic-update-slice", "scatter") and _begins_as(value, "parameter", inside):
        update = inside[value.operands[-1 if value.opcode == "scatter" else 1]]
        return sum(a.padded for a in update.arrays)
    return sum(a.padded for a in arrays)


def _begins_as(value: Instruction, opcode: str, inside: Computation) -> bool:
    first = inside[value.operands[0]]
    while first.opcode in _RENAMES:
        first = inside[first.operands[0]]
    return first.opcode == opcode
