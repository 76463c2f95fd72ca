"""The training step: views, encoder, objective, gradient and update as one program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives import Objective
from hamjepa_jax.training.mesh import batch_sharded, parameters_sharded, replicated
from hamjepa_jax.training.state import TrainState

Array = jax.Array
OWN_METRICS = ("grad_norm", "learning_rate")
Encode = Callable[[Any, Any, Array], tuple[Array, Any]]  # (params, batch_stats, images) -> (z, batch_stats)
Views = Callable[[Any, Any, Array], tuple[Array, ...]]  # (store, batch, epoch) -> ([b, v, h, w, 3], …)


def make_train_step(
    *,
    encode: Encode,
    views: Views,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    steps_per_epoch: int,
    accumulation: int,
    mesh: Mesh,
) -> Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]:
    """The function (state, store, batch) -> (state, metrics), pure and ready for `jax.jit`.

    `views` makes views of `store` and `batch`; `batch` is an array or a tree of them, the examples of the global
    batch along the first axis of each. Metrics are scalars of this step: "total" (the loss), the objective's
    own, "grad_norm" (of the networks, before clipping) and "learning_rate". With `accumulation` > 1 gradients are
    averaged over that many micro-batches; batch statistics are then those of a micro-batch. Parameters that are
    split over "fsdp" are gathered for the step and their gradients split again.
    """

    def embed(params: Any, batch_stats: Any, store: Any, batch: Any, epoch: Array) -> tuple[Array, Any]:
        """Embeddings of all views [v, b, k], the views of each size through the encoder as one batch."""
        embeddings = []
        for images in views(store, batch, epoch):
            b, v = images.shape[:2]
            images = jax.lax.with_sharding_constraint(images, batch_sharded(mesh))
            z, batch_stats = encode(params, batch_stats, images.reshape(b * v, *images.shape[2:]))
            embeddings.append(z.reshape(b, v, -1).swapaxes(0, 1))
        return jnp.concatenate(embeddings), batch_stats

    def gradients(params, batch_stats, draw, store, batch, epoch):
        def loss_of(params):
            z, new_stats = embed(params, batch_stats, store, batch, epoch)
            loss, metrics = checked(objective.loss(params[objective.reads], z, draw, epoch + 1))
            return loss, ({"total": loss} | metrics, new_stats)

        (_, (metrics, new_stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        return gradient, metrics, new_stats

    def accumulated_gradients(params, batch_stats, draw, store, batch, epoch):
        def add(carry, batch):
            batch_stats, total = carry
            gradient, metrics, batch_stats = gradients(params, batch_stats, draw, store, batch, epoch)
            return (batch_stats, jax.tree.map(jnp.add, total, gradient)), metrics

        start = batch_stats, jax.tree.map(jnp.zeros_like, params)
        (batch_stats, total), metrics = jax.lax.scan(add, start, micro_batches(batch, accumulation))
        gradient = jax.tree.map(lambda x: x / accumulation, total)
        return gradient, jax.tree.map(lambda x: x.mean(axis=0), metrics), batch_stats

    def train_step(state: TrainState, store: Any, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        batch = jax.lax.with_sharding_constraint(batch, batch_sharded(mesh))
        draw = refreshed(objective, state.draw, state.step)
        compute = gradients if accumulation == 1 else accumulated_gradients
        whole = jax.lax.with_sharding_constraint(state.params, replicated(mesh))
        gradient, metrics, batch_stats = compute(
            whole, state.batch_stats, draw, store, batch, state.step // steps_per_epoch
        )
        gradient = jax.lax.with_sharding_constraint(gradient, parameters_sharded(mesh, gradient))
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        networks = {name: g for name, g in gradient.items() if objective.init is None or name != objective.reads}
        metrics |= {"grad_norm": optax.global_norm(networks), "learning_rate": schedule(state.step)}
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            draw=draw,
        )
        return new_state, metrics

    return train_step


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


def micro_batches(batch: Any, accumulation: int) -> Any:
    """A batch's arrays [b, …] as [accumulation, b/accumulation, …]."""
    # Strided, so that each micro-batch stays spread over all devices.
    return jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch)


def refreshed(objective: Objective, draw: Any, step: Array) -> Any:
    """The random projections for this step: orthonormalising them anew every step would cost too much."""
    interval = objective.refresh_interval
    if interval == 1:
        return objective.draw(step)
    return jax.lax.cond(step % interval == 0, lambda: objective.draw(step // interval), lambda: draw)


def several_steps(train_step: Callable) -> Callable:
    """The same function over k batches stacked: k steps in one program; metrics get a leading axis [k]."""

    def run(state: TrainState, store: Any, batches: Any) -> tuple[TrainState, dict[str, Array]]:
        return jax.lax.scan(lambda state, batch: train_step(state, store, batch), state, batches)

    return run
