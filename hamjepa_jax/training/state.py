"""The state that a run carries from step to step; nothing in it can be recomputed from the step."""

from typing import Any

import flax.struct
import jax

from hamjepa_jax.errors import UserError


class TrainState(flax.struct.PyTreeNode):
    """Attributes:
    step: number of optimiser steps taken, int32 scalar.
    params: {"encoder", "predictor"} and, where there are any, {"projector"} and the objective's own, {"spectrum"}:
      parameter trees, float32.
    batch_stats: {"encoder"[, "projector"]}: running batch statistics, float32.
    opt_state: the optimiser's state.
    draw: the objective's random projections in force, see `objectives.Objective`.
    teacher: {"params", "batch_stats"} of an objective's teacher, in trees like those above; None without one.
    carried: what an objective carries from step to step without a gradient; None where it is not `Wide`.
    probe: {"params", "opt_state"} of the online probe, see `training.online_probe`; None without one.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    draw: Any
    teacher: Any = None
    carried: Any = None
    probe: Any = None

    def evaluated(self, *, teacher: bool) -> dict[str, Any]:
        """{"params", "batch_stats"} of the networks that are evaluated, the teacher's ones if asked.

        Raises:
          UserError: if there is no teacher.
        """
        if teacher and self.teacher is None:
            raise UserError("evaluate.teacher True: the run's objective has no teacher; set it to False.")
        variables = {"params": self.params, "batch_stats": self.batch_stats}
        return {name: tree | self.teacher[name] for name, tree in variables.items()} if teacher else variables
