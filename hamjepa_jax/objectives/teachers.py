"""Momentum schedules of a teacher, for the objectives that have one."""

import jax
import jax.numpy as jnp

from hamjepa_jax.objectives.objective import Teacher
from hamjepa_jax.parts import Settings, Values, field, settings

Array = jax.Array


def teacher_settings(momentum: float, meaning: str) -> Settings:
    """The settings of a teacher; `meaning` says whose the default momentum is."""
    return settings(
        momentum=field(momentum, f"The teacher's momentum at the start; {meaning}.", least=0, most=1),
        momentum_schedule=field(
            "cosine",
            'Course of the momentum: "cosine", along a half cosine to 1 at the end (BYOL), or "constant".',
            choices=("cosine", "constant"),
        ),
    )


def target_pairs(views: Array, targets: Array) -> list[tuple[int, int]]:
    """Every view [v, …] with every target [g, …] but its own: the targets are those of the first g views."""
    return [(i, j) for i in range(len(views)) for j in range(len(targets)) if i != j]


def teacher(s: Values) -> Teacher:
    """The teacher of the values of `teacher_settings`: 1 − (1 − m)·(cos(π·share) + 1)/2 (BYOL, section 3.3)."""

    def momentum(share: Array) -> Array:
        left = 0.5 * (jnp.cos(jnp.pi * share) + 1) if s.momentum_schedule == "cosine" else jnp.ones_like(share)
        return 1 - (1 - s.momentum) * left

    return Teacher(momentum)
