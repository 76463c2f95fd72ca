"""The form that every objective has for the training step, and what an objective may know of a run."""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import optax

from hamjepa_jax.errors import UserError
from hamjepa_jax.parts import Values

Array = jax.Array


class Objective(NamedTuple):
    """A loss on the views' embeddings.

    Attributes:
      draw: (refresh count) -> pytree of random projections or directions, a function of the count alone.
      refresh_interval: steps for which one draw serves.
      loss: (params of the group `reads`, z [v, b, k], draw, epoch counted from 1) -> (scalar loss,
        {name: scalar}).
      reads: the group of parameters that the loss reads besides the embeddings.
      init: makes that group if it is the objective's own; None if the group is one of the networks.
      optimizer: of the objective's own group. None trains the group with the networks' AdamW and learning rate.
    """

    draw: Callable[[Array | int], Any]
    refresh_interval: int
    loss: Callable[[Any, Array, Any, Array], tuple[Array, dict[str, Array]]]
    reads: str = "predictor"
    init: Callable[[], Any] | None = None
    optimizer: optax.GradientTransformation | None = None


class Grid(NamedTuple):
    """The token grid inside an embedding.

    Attributes:
      h, w: rows and columns.
      channels: of a token that lie together in the embedding: all of them, or half in each of q and p.
    """

    h: int
    w: int
    channels: int


class Context(NamedTuple):
    """The facts of a run that an objective may know.

    Attributes:
      num_global, num_local: views of each kind; the global ones come first.
      batch_size: examples in a (micro-)batch, over all devices.
      embed_dim: k, the size of an embedding, after the projector if there is one.
      grid: the token grid of an embedding; None if the embedding is no token grid (global mode, projector).
      seed: of the run; may be traced.
      predictor: its init, flow, energy and potential, see `nn.Predictor`.
      residual_scale: epoch (from 1) -> scale of the learned part of the energy.
      horizon: epoch (from 1) -> steps of the flow that are taken; None takes all.
      optimizer: values of config.optimizer.
    """

    num_global: int
    num_local: int
    batch_size: int
    embed_dim: int
    grid: Grid | None
    seed: int | Array
    predictor: Any
    residual_scale: Callable[[Array | int], Array | float]
    horizon: Callable[[Array | int], Array | int] | None
    optimizer: Values


def refuse(path: str, value: Any, problem: str) -> NoReturn:
    """Refuses a setting in the form of all refusals, "field value: problem; remedy.".

    Args:
      path: of the field in a config.
      value: that it has.
      problem: "must be …", and the remedy after a semicolon.

    Raises:
      UserError: always.
    """
    raise UserError(f"{path} {value!r}: {problem}.")


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
