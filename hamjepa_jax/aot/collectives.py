"""Collectives of a compiled program, read off its HLO text."""

import collections
import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128}  # others have theirs in the name: f32, s8, u4, f8e4m3


class Collective(NamedTuple):
    """Attributes:
    kind: one of KINDS.
    bytes: of the whole array on each device: the array to reduce, scatter or send, or the gathered result.
    group: devices that exchange among themselves.
    times: how often a step runs it: the trips of the loops around it.
    source: the operation in the program's source, as XLA notes it, or "".
    """

    kind: str
    bytes: int
    group: int
    times: int
    source: str


def find_collectives(hlo: str, num_devices: int) -> list[Collective]:
    """The collectives of a compiled module, each once.

    Loops multiply the collectives in them by their trips, where the text shows the number, else by 1. Both branches
    of a conditional count. An asynchronous pair counts at its start; one that is spread over several fusions, to
    run beside their arithmetic, has the same channel in all of them and counts once.

    Args:
      hlo: `jax.stages.Compiled.as_text()`.
      num_devices: of the program; the group where the text names none.
    """
    computations, entry = _computations(hlo)
    times, fused = _times(computations, entry), _fused(computations)
    found = {}
    for name, lines in computations.items():
        for line in lines:
            match = _COLLECTIVE.search(line)
            if match is None or not times[name]:
                continue
            group = _group_size(line, num_devices)
            source = re.search(r'op_name="([^"]*)"', line)
            one = Collective(match["kind"], _bytes(match, group), group, times[name], source[1] if source else "")
            channel = re.search(r"channel_id=\d+", line)
            key = (one.kind, channel[0]) if channel and name in fused else (name, line)
            found[key] = min(one, found.get(key, one), key=lambda c: c.times)
    return list(found.values())


_COLLECTIVE = re.compile(rf" = (?P<type>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """The instructions of each computation, and the name of the one that is run."""
    computations, current, entry = {}, None, ""
    for line in hlo.splitlines():
        header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if header:
            current = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif current is not None:
            current.append(line)
    return computations, entry


def _times(computations: dict[str, list[str]], entry: str) -> collections.Counter:
    """How often a run of the entry runs each computation."""
    times = collections.Counter()

    def visit(name: str, count: int) -> None:
        times[name] += count
        for line in computations[name]:
            trips = _trips(line, computations) if " while(" in line else 1
            for called in re.findall(r"%([\w.\-]+)", "".join(_CALLS.findall(line))):
                if called in computations:
                    visit(called, count * trips)

    visit(entry, 1)
    return times


def _fused(computations: dict[str, list[str]]) -> set[str]:
    """Names of the computations that fusions run."""
    fusions = [line for lines in computations.values() for line in lines if " fusion(" in line]
    return {name for line in fusions for name in re.findall(r"calls=%([\w.\-]+)", line)}


# Reductions (to_apply) have no collectives in them, but calls are written the same way.
_CALLS = re.compile(r"(?:body|calls|to_apply|branch_computations|(?:true|false)_computation)=(\{[^}]*\}|%[\w.\-]+)")


def _trips(line: str, computations: dict[str, list[str]]) -> int:
    """Trips of a while loop: as XLA notes them, or the bound of a counter from 0; 1 if neither is there."""
    noted = re.search(r"known_trip_count\D*(\d+)", line)
    if noted:
        return int(noted[1])
    condition = computations.get(re.search(r"condition=%([\w.\-]+)", line)[1], [])
    bounds = [int(n) for n in re.findall(r" = s32\[\]\S* constant\((\d+)\)", "\n".join(condition))]
    return bounds[0] if len(bounds) == 1 and any("direction=LT" in c for c in condition) else 1


def _group_size(line: str, num_devices: int) -> int:
    """Devices in a group, from {{0,1},{2,3}}, from [groups,size]<=[…] or from a mesh with the axes it runs over."""
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", line):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(match[1].split(","))
    return num_devices


def _bytes(match: re.Match, group: int) -> int:
    shapes = _ARRAY.findall(match["type"])
    if match["start"] and match["kind"] == "collective-permute":
        shapes = shapes[1:2]  # (sent, received, and two counters)
    elif match["start"] and match["kind"] == "all-gather":
        shapes = shapes[len(shapes) // 2 :]  # (operands, results)
    size = sum(_bits(dtype) * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in shapes) // 8
    return size * group if match["kind"] == "reduce-scatter" else size


def _bits(dtype: str) -> int:
    return BITS.get(dtype) or int(re.match(r"[a-z]+(\d+)", dtype)[1])
