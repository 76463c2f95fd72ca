"""The form that every training objective has for the training step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array


class Objective(NamedTuple):
    """A loss on the views' embeddings.

    Attributes:
      draw: (refresh count) -> pytree of random projections or directions, a function of the count alone.
      refresh_interval: steps for which one draw serves.
      loss: (params of the group `reads`, z [v, b, k], draw, epoch counted from 1) -> (scalar loss,
        {name: scalar}).
      reads: the group of the parameters that the loss reads beside the embeddings.
      init: makes that group where it is the objective's own, trained by an optimiser of its own; None where it is
        one of the networks.
    """

    draw: Callable[[Array | int], Any]
    refresh_interval: int
    loss: Callable[[Any, Array, Any, Array], tuple[Array, dict[str, Array]]]
    reads: str = "predictor"
    init: Callable[[], Any] | None = None


def as_one_batch(z: Array) -> Array:
    """The embeddings of all views as one batch, [v, b, k] -> [b·v, k].

    The views of an example lie together, so that a batch that is split over devices stays split; with the examples
    of a view together, every device would gather the whole batch.
    """
    return z.swapaxes(0, 1).reshape(-1, z.shape[-1])


def scale_diagnostics(x: Array, name: str) -> dict[str, Array]:
    """Mean square and smallest coordinate standard deviation of features [n, d], keyed `name`_…."""
    x = jax.lax.stop_gradient(x)
    return {f"{name}_mean_square": jnp.square(x).mean(), f"{name}_min_std": x.std(axis=0).min()}
