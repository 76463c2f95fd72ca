"""AdamW with warm-up, cosine decay, clipping, and separate learning rates or optimisers for groups."""

from typing import Any

import jax
import optax


def warmup_cosine(
    learning_rate: float, *, warmup_steps: int, total_steps: int, start: float, final: float
) -> optax.Schedule:
    """Linear from start·lr at step 0 to lr at `warmup_steps`, then cosine to final·lr at `total_steps`.

    Args:
      learning_rate: lr, the peak.
      warmup_steps: 0 begins at the peak.
      total_steps: end of the cosine.
      start: share of lr at step 0.
      final: share of lr at the end.
    """
    cosine = optax.cosine_decay_schedule(learning_rate, total_steps - warmup_steps, alpha=final)
    if warmup_steps == 0:
        return cosine
    warmup = optax.linear_schedule(start * learning_rate, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, cosine], [warmup_steps])


def adamw(
    schedules: dict[str, optax.Schedule],
    *,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    clip_norm: float | None,
    separate: dict[str, optax.GradientTransformation] | None = None,
) -> optax.GradientTransformation:
    """AdamW with decoupled weight decay on every parameter, one schedule for each top-level group of parameters.

    Args:
      schedules: {group: learning rate}, the groups being the keys of the parameter dict.
      b1, b2, eps, weight_decay: of AdamW.
      clip_norm: largest norm of the gradient over these groups together; None does not clip.
      separate: {group: transformation} of groups with another optimiser, which are not clipped.
    """
    separate = separate or {}

    def groups(params: dict[str, Any]) -> dict[str, Any]:
        return {name: jax.tree.map(lambda _, name=name: name, tree) for name, tree in params.items()}

    by_group = {
        name: optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
        for name, schedule in schedules.items()
    }
    update = optax.partition(by_group | separate, groups)
    if clip_norm is None:
        return update
    clip = optax.clip_by_global_norm(clip_norm)
    if separate:
        clip = optax.masked(clip, lambda tree: {name: name not in separate for name in tree})
    return optax.chain(clip, update)
