"""The form of a predictor, and the settings that predictors share."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hamjepa_jax.errors import UserError
from hamjepa_jax.parts import field, settings

Array = jax.Array

SHARED = settings(
    num_steps=field(2, "Number S of steps.", least=1, most=1024),
    horizon=field(
        (),
        "Curriculum of stages (epoch, steps): so many steps from that epoch (from 1) on; () takes S throughout.",
        of=tuple,
        hint="give stages (epoch, steps), as in ((1, 1), (11, 2))",
    ),
    hidden=field(256, "Width of the hidden layers of the potential, or of the MLP predictor.", least=1, most=2**14),
    depth=field(2, "Number of these hidden layers.", least=1, most=32),
    residual_scale=field(0.02, "Scale s of the learned part of the energy."),
    residual_warmup_epochs=field(0, "Epochs over which s grows to its value; 0 keeps it constant.", least=0),
)


class Predictor(NamedTuple):
    """A learned map of phase-space states and its energy.

    Attributes:
      init: (key, d) -> parameters, for states z = [q; p] with q, p of size d.
      flow: (params, z, direction, residual_scale, horizon=None) -> z, [..., 2d] each; direction ±1 is static,
        residual_scale a scalar that multiplies the learned part of the energy (ignored if there is none).
        horizon is how many of the steps are taken, and may be traced; None takes all. Computed in float32, returned
        in z's type.
      energy: (params, z, residual_scale) -> [...]; None if the map has no energy.
      potential: (params, q) -> [...], the learned part of a separable energy; None for other maps.
    """

    init: Callable[[Array, int], Any]
    flow: Callable[..., Array]
    energy: Callable[..., Array] | None = None
    potential: Callable[..., Array] | None = None


def check_horizon(stages: Sequence[Any], num_steps: int) -> None:
    """Refuses a horizon that is not a curriculum.

    Args:
      stages: predictor.horizon.
      num_steps: predictor.num_steps.

    Raises:
      UserError: if a stage is not a pair of whole numbers, the epochs do not ascend from 1, or the steps do not
        grow to `num_steps`.
    """
    if not stages:
        return
    if not all(map(_is_stage, stages)):
        raise UserError(
            f"predictor.horizon {stages}: give stages (epoch, steps), as in ((1, 1), (11, {num_steps}))."
        )
    epochs, steps = zip(*stages, strict=True)
    if epochs[0] != 1 or any(a >= b for a, b in itertools.pairwise(epochs)):
        raise UserError(f"predictor.horizon {stages}: the stages' epochs must ascend and begin with 1.")
    if steps[0] < 1 or any(a >= b for a, b in itertools.pairwise(steps)) or steps[-1] != num_steps:
        raise UserError(
            f"predictor.horizon {stages}: the stages' steps must grow, from at least 1 to predictor.num_steps "
            f"{num_steps}, with which the trained map is read."
        )


def _is_stage(stage: Any) -> bool:
    return (
        isinstance(stage, tuple | list)
        and len(stage) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) for n in stage)
    )


def taken(horizon: int | Array, num_steps: int) -> Array:
    """Whether each step is taken: [num_steps] booleans."""
    return jnp.arange(num_steps) < horizon


def at_least_float32(z: Array) -> Array:
    return z.astype(jnp.promote_types(z.dtype, jnp.float32))
