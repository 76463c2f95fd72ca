"""Cycles of a compiled program, as the TPU compiler itself estimates them for its instructions."""

import re

from hamjepa_jax.aot.hlo import Program


def scheduled_cycles(program: Program) -> int:
    """Cycles of a run, one instruction after the other, the vector unit's work too; 0 where there are no estimates.

    Copies and slices that run beside other work have none.
    """
    cycles = 0
    for name, times in program.times(inside_fusions=False).items():
        found = (re.search(r'"estimated_cycles":"(\d+)"', i.attributes) for i in program.computations[name])
        cycles += times * sum(int(match[1]) for match in found if match)
    return cycles
