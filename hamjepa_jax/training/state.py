"""The state that a run carries from step to step; nothing in it can be recomputed from the step."""

from typing import Any

import flax.struct
import jax


class TrainState(flax.struct.PyTreeNode):
    """Attributes:
    step: number of optimiser steps taken, int32 scalar.
    params: {"encoder", "predictor"} and, where there are any, {"projector"} and the objective's own, {"spectrum"}:
      parameter trees, float32.
    batch_stats: {"encoder"[, "projector"]}: running batch statistics, float32.
    opt_state: the optimiser's state.
    draw: the objective's random projections in force, see `objectives.Objective`.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    draw: Any
