"""Optimisers with warm-up, cosine decay, clipping, and separate learning rates or optimisers for groups."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, muon

Tree = Any
# The root mean square that Muon's updates are scaled to, so that learning rates of Adam suit (Liu et al., 2025).
MUON_RMS = 0.2
TRUST = 0.001  # LARS's share of an array's norm that an update of learning rate 1 has (You et al., 2017)


class Rule(NamedTuple):
    """How a network's parameters follow their gradients.

    Attributes:
      name: "adamw"; "lars" (You et al., 2017); "sgd", with the decay as part of the gradient; or "muon" (Jordan,
        2024) for kernels and AdamW for everything else.
      weight_decay: a number, or a schedule.
      b1, b2, eps: of AdamW.
      momentum: of lars, sgd and muon.
      decay_mask: whether norms, biases, tokens and position embeddings are spared the decay, and LARS's scaling.
    """

    name: str
    weight_decay: float | optax.Schedule
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    decay_mask: bool = False


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


def cosine_between(first: float, last: float, total_steps: int) -> optax.Schedule:
    """Half a cosine from `first` at step 0 to `last` at `total_steps`."""
    return lambda step: last + (first - last) * (1 + jnp.cos(jnp.pi * jnp.minimum(step / total_steps, 1.0))) / 2


def by_groups(
    rule: Rule,
    schedules: dict[str, optax.Schedule],
    *,
    clip_norm: float | None,
    separate: dict[str, optax.GradientTransformation] | None = None,
    factors: Callable[[Tree], Tree] | None = None,
) -> optax.GradientTransformation:
    """One rule, with a schedule for each top-level group of parameters.

    Args:
      rule: of these groups.
      schedules: {group: learning rate}, the groups being the keys of the parameter dict.
      clip_norm: largest norm of the gradient over these groups together; None does not clip.
      separate: {group: transformation} of groups with another optimiser, which are not clipped.
      factors: parameters -> factor of the learning rate for each array; None for 1.
    """
    separate = separate or {}

    def groups(params: dict[str, Any]) -> dict[str, Any]:
        return {name: jax.tree.map(lambda _, name=name: name, tree) for name, tree in params.items()}

    by_group = {name: follow(rule, schedule) for name, schedule in schedules.items()}
    update = optax.partition(by_group | separate, groups)
    if factors is not None:
        scale = optax.stateless(lambda updates, params: jax.tree.map(jnp.multiply, updates, factors(params)))
        update = optax.chain(update, scale)
    if clip_norm is None:
        return update
    clip = optax.clip_by_global_norm(clip_norm)
    if separate:
        clip = optax.masked(clip, lambda tree: {name: name not in separate for name in tree})
    return optax.chain(clip, update)


def follow(rule: Rule, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The rule's transformation of gradients into updates, for one group."""
    mask = kernels if rule.decay_mask else None
    if rule.name == "adamw":
        return optax.adamw(
            schedule, b1=rule.b1, b2=rule.b2, eps=rule.eps, weight_decay=rule.weight_decay, mask=mask
        )
    decay = optax.add_decayed_weights(rule.weight_decay, mask)
    if rule.name == "sgd":
        return optax.chain(decay, optax.sgd(schedule, momentum=rule.momentum))
    if rule.name == "lars":
        trust = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=TRUST), mask or whole)
        # The learning rate comes after the momentum, as in PyTorch's SGD, so that a warm-up holds at once.
        return optax.chain(decay, trust, optax.trace(rule.momentum), optax.scale_by_learning_rate(schedule))
    if rule.name == "muon":
        steps = muon(
            1.0,
            beta=rule.momentum,
            adam_b1=rule.b1,
            adam_b2=rule.b2,
            eps=rule.eps,
            muon_weight_dimension_numbers=matrices,
            consistent_rms=MUON_RMS,
        )
        # Decay is added by hand: optax's Muon takes no schedule for it.
        return optax.chain(steps, optax.scale(-1.0), decay, optax.scale_by_learning_rate(schedule))
    raise ValueError(f"there is no optimiser {rule.name!r}.")


def kernels(params: Tree) -> Tree:
    """Which arrays are weights of linear maps and convolutions, rather than norms, biases, tokens or positions."""
    return jax.tree_util.tree_map_with_path(lambda path, x: x.ndim > 1 and not _is_added(path), params)


def whole(params: Tree) -> Tree:
    return jax.tree.map(lambda _: True, params)


def matrices(params: Tree) -> Tree:
    """The axes of a kernel, [..., inputs, outputs], that Muon makes orthogonal; None for all other arrays."""

    def axes(path: tuple, x: jax.Array) -> MuonDimensionNumbers | None:
        if x.ndim < 2 or _is_added(path):
            return None
        return MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1)

    return jax.tree_util.tree_map_with_path(axes, params)


def _is_added(path: tuple) -> bool:
    """Whether an array is added to tokens: a class or register token, or a position embedding."""
    return str(getattr(path[-1], "key", "")).endswith(("_token", "_embed")) if path else False
