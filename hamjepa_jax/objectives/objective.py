"""The form that every objective has for the training step, and what an objective may know of a run."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hamjepa_jax.errors import UserError
from hamjepa_jax.parts import Values

Array = jax.Array
OWN_METRICS = ("grad_norm", "learning_rate")  # the training step's


class Teacher(NamedTuple):
    """Asks for a teacher: an average of the networks that moves after every step, t ← m·t + (1 − m)·network.

    It begins as a copy of the networks, and its batch statistics are those of its own passes.

    Attributes:
      momentum: share of the training that is done, 0 … 1 -> m.
      groups: of parameters that it has besides the encoder and the projector.
    """

    momentum: Callable[[Array], Array | float]
    groups: tuple[str, ...] = ()


class Embedded(NamedTuple):
    """Attributes:
    z: [v, b, k] embeddings, after the projector if there is one.
    h: [v, b, d] embeddings before it; z itself without one.
    params: of the groups that were asked for, by name.
    """

    z: Array
    h: Array
    params: Any = None


class Seen(NamedTuple):
    """What a wide objective's loss sees.

    Attributes:
      z, h: of all views, see `Embedded`.
      teacher: the teacher's embeddings of the global views, of which no gradient is taken; None without a teacher.
      carried: the objective's carried state.
      gaps: of clips, frames from one view of each example to the next [b]; None of images.
      labels: classes [b], for an objective whose registration says reads_labels=True; None otherwise.
    """

    z: Array
    h: Array
    teacher: Embedded | None = None
    carried: Any = None
    gaps: Array | None = None
    labels: Array | None = None


class Wide(NamedTuple):
    """What an objective asks for beyond the embeddings z of all views.

    Attributes:
      teacher: a teacher; None for none.
      carried: key -> the first value of what the objective carries from step to step without a gradient, such as
        the batch statistics of its own network.
      keep: draw -> indices [n] of the tokens that the networks see of every view, for masked prediction; the
        teacher sees all. None leaves none out.
    """

    teacher: Teacher | None = None
    carried: Callable[[Array], Any] = lambda key: ()
    keep: Callable[[Any], Array] | None = None


class Objective(NamedTuple):
    """A loss on the views' embeddings.

    With `wide`, the loss is (params, `Seen`, draw, epoch) -> (scalar loss, {name: scalar}, carried), and `init`
    gets a key.

    Attributes:
      draw: (refresh count) -> pytree of random projections or directions, a function of the count alone.
      refresh_interval: steps for which one draw serves.
      loss: (params of the group `reads`, z [v, b, k], draw, epoch counted from 1) -> (scalar loss,
        {name: scalar}).
      reads: the group of parameters that the loss reads besides the embeddings.
      init: makes that group if it is the objective's own; None if the group is one of the networks.
      optimizer: of the objective's own group. None trains the group with the networks' optimiser and learning rate.
      wide: what it asks for beyond z; None for nothing.
      reads_gaps: whether the loss of an objective that is not wide takes `gaps` too, where views are of clips.
    """

    draw: Callable[[Array | int], Any]
    refresh_interval: int
    loss: Callable[[Any, Array, Any, Array], tuple[Array, dict[str, Array]]]
    reads: str = "predictor"
    init: Callable[..., Any] | None = None
    optimizer: optax.GradientTransformation | None = None
    wide: Wide | None = None
    reads_gaps: bool = False

    @property
    def teacher(self) -> Teacher | None:
        return None if self.wide is None else self.wide.teacher

    def kept(self, draw: Any) -> dict[str, Array]:
        """{"keep": the tokens that the networks see}; empty where they see all."""
        return {} if self.wide is None or self.wide.keep is None else {"keep": self.wide.keep(draw)}

    def first_own(self, key: Array) -> tuple[Any, Any]:
        """(its own group of parameters, its carried state) at the start; None where it has none."""
        if self.wide is None:
            return (None if self.init is None else self.init()), None
        keys = jax.random.split(key)
        return (None if self.init is None else self.init(keys[0])), self.wide.carried(keys[1])

    def of(self, params: Any, seen: Seen, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array], Any]:
        """(loss, {name: scalar}, carried) of either form.

        Raises:
          UserError: if the loss returns something else.
        """
        if self.wide is None:
            more = {"gaps": seen.gaps} if self.reads_gaps and seen.gaps is not None else {}
            return *checked(self.loss(params, seen.z, draw, epoch, **more)), seen.carried
        returned = self.loss(params, seen, draw, epoch)
        if not isinstance(returned, tuple) or len(returned) != 3:
            raise UserError(
                "objective.name: the loss of a wide objective must return (scalar, {name: scalar}, carried)."
            )
        loss, metrics, carried = returned
        before, after = (
            jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), x) for x in (seen.carried, carried)
        )
        if before != after:
            raise UserError(
                f"objective.name: its loss must keep the carried state's form {before}, it gave {after}."
            )
        return *checked((loss, metrics)), carried


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
      network: makes a network of the objective's own, see `nn.network`.
      token_network: makes one that predicts tokens from others, see `nn.token_network`; None where the encoder
        gives no tokens or cannot leave some out.
      grid: the token grid of an embedding; None if the embedding is no token grid (global mode, projector).
      seed: of the run; may be traced.
      predictor: its init, flow, energy and potential, see `nn.Predictor`.
      residual_scale: epoch (from 1) -> scale of the learned part of the energy.
      horizon: epoch (from 1) -> steps of the flow that are taken; None takes all.
      optimizer: values of config.optimizer.
      max_gap: largest number of frames from one view of a clip to the next.
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
    network: Callable[..., Any] | None = None
    max_gap: int = 1
    token_network: Callable[..., Any] | None = None


def checked(returned: Any) -> tuple[Array, dict[str, Array]]:
    """What an objective's loss returned.

    Raises:
      UserError: if it is not a scalar loss with scalars by names that are not the step's own.
    """
    wanted = "the objective's loss must return (scalar, {name: scalar})"
    if not isinstance(returned, tuple) or len(returned) != 2 or not isinstance(returned[1], dict):
        raise UserError(f"objective.name: {wanted}; it returned {type(returned).__name__}.")
    loss, metrics = returned
    for name, value in [*metrics.items(), ("loss", loss)]:
        if not isinstance(name, str) or name in OWN_METRICS:
            raise UserError(f"objective.name: {wanted}; {name!r} is no name for a scalar, or the step's own.")
        array = value if isinstance(value, jax.Array) else np.asarray(value)
        allowed = jnp.floating if name == "loss" else jnp.number
        if array.shape != () or not jnp.issubdtype(array.dtype, allowed):
            raise UserError(f"objective.name: {wanted}; {name!r} is {array.dtype} {array.shape}.")
    return loss, metrics


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


def view_pairs(z: Array, num_global: int) -> list[tuple[int, int]]:
    """Every pair of a global view and a later view of z [v, …]; of two global views the one pair."""
    return [(i, j) for i, j in itertools.combinations(range(len(z)), 2) if i < num_global]


def unit_length(x: Array) -> Array:
    """x [..., k] divided by its Euclidean length; a length below 1e-6 counts as that."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-12))
