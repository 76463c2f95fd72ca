"""Collectives of a compiled program, read off its HLO text."""

import math
import re
from typing import NamedTuple

from hamjepa_jax.aot.hlo import Instruction, Program

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


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


def find_collectives(program: Program, num_devices: int) -> list[Collective]:
    """The collectives of a compiled program, each once.

    Loops multiply the collectives in them by their trips, where the text shows the number, else by 1. Both branches
    of a conditional count. An asynchronous pair counts at its start; one that is spread over several fusions, to
    run beside their arithmetic, has the same channel in all of them and counts once.

    Args:
      program: as `hlo.parse` reads it.
      num_devices: of the program; the group where the text names none.
    """
    times, fused = program.times(inside_fusions=True), program.fused()
    found = {}
    for name, instructions in program.computations.items():
        for i in instructions:
            kind = i.opcode.removesuffix("-start")
            if kind not in KINDS or not times[name]:
                continue
            group = _group_size(i.text, num_devices)
            source = re.search(r'op_name="([^"]*)"', i.attributes)
            one = Collective(kind, _bytes(i, group), group, times[name], source[1] if source else "")
            channel = re.search(r"channel_id=\d+", i.attributes)
            key = (one.kind, channel[0]) if channel and name in fused else (name, i.text)
            found[key] = min(one, found.get(key, one), key=lambda c: c.times)
    return list(found.values())


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


def _bytes(i: Instruction, group: int) -> int:
    arrays = i.arrays
    if i.opcode == "collective-permute-start":
        arrays = arrays[1:2]  # (sent, received, and two counters)
    elif i.opcode == "all-gather-start":
        arrays = arrays[len(arrays) // 2 :]  # (operands, results)
    size = sum(a.size for a in arrays)
    return size * group if i.opcode.startswith("reduce-scatter") else size
