"""Momentum schedules of a teacher, for the objectives that have one."""

import jax
import jax.numpy as jnp

from hamjepa_jax.objectives.objective import Teacher
from hamjepa_jax.parts import Settings, Values, field, settings

Array = jax.Array
# Share of the training that is done -> what is left of 1 − momentum.
COURSES = {
    "cosine": lambda share: 0.5 * (jnp.cos(jnp.pi * share) + 1),
    "linear": lambda share: 1 - share,
    "constant": jnp.ones_like,
}


def teacher_settings(momentum: float, meaning: str) -> Settings:
    """The settings of a teacher; `meaning` says whose the default momentum is."""
    return settings(
        momentum=field(momentum, f"The teacher's momentum at the start; {meaning}.", least=0, most=1),
        momentum_schedule=field(
            "cosine",
            'Course of the momentum: "cosine", along a half cosine to 1 at the end (BYOL, DINO); "linear", to 1 at '
            'the end (I-JEPA); or "constant".',
            choices=tuple(COURSES),
        ),
    )


def target_pairs(views: Array, targets: Array) -> list[tuple[int, int]]:
    """Every view [v, …] with every target [g, …] but its own: the targets are those of the first g views."""
    return [(i, j) for i in range(len(views)) for j in range(len(targets)) if i != j]


def teacher(s: Values) -> Teacher:
    """The teacher of the values of `teacher_settings`: 1 − (1 − m)·left, of the cosine (cos(π·share) + 1)/2."""

    def momentum(share: Array) -> Array:
        return 1 - (1 - s.momentum) * COURSES[s.momentum_schedule](jnp.asarray(share))

    return Teacher(momentum)
