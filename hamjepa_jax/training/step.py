"""The training step: views, encoder, objective, gradient and update as one program."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from hamjepa_jax.objectives import Embedded, Objective, Seen
from hamjepa_jax.training.mesh import batch_sharded, gathered, parameters_sharded, replicated
from hamjepa_jax.training.state import TrainState

Array = jax.Array
# (params, batch_stats, images[, keep=tokens]) -> ((embeddings before the projector, after it), batch_stats)
Embed = Callable[..., tuple[tuple[Array, Array], Any]]
Views = Callable[[Any, Any, Array], tuple[Array, ...]]  # (store, batch, epoch) -> ([b, v, h, w, 3], …)
Gaps = Callable[[Any, Array], Array | None]  # (batch, epoch) -> frames from view to view [b]; None of images
Labels = Callable[[Any, Any], Array | None]  # (store, batch) -> classes [b]; None where the objective reads none


def no_gaps(batch: Any, epoch: Array) -> None:
    """The gaps of images."""
    del batch, epoch


def no_labels(store: Any, batch: Any) -> None:
    """The labels for an objective that reads none."""
    del store, batch


class Reads(NamedTuple):
    """What a step reads of `store` and `batch`; `batch` is an array or a tree of them."""

    views: Views
    gaps: Gaps = no_gaps
    labels: Labels = no_labels


class Running(NamedTuple):
    """What changes in a step without a gradient: batch statistics, the teacher's, the objective's carried state."""

    batch_stats: Any
    teacher_stats: Any
    carried: Any


class Fixed(NamedTuple):
    """What the gradient of a step takes as given: the teacher's parameters, the random projections, the epoch."""

    teacher: Any
    draw: Any
    epoch: Array


def make_train_step(
    *,
    embed: Embed,
    reads: Reads,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    steps_per_epoch: int,
    total_steps: int,
    accumulation: int,
    mesh: Mesh,
    layers: str | None = None,
) -> Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]:
    """The function (state, store, batch) -> (state, metrics), pure and ready for `jax.jit`.

    `batch` holds the examples of the global batch along the first axis of each of its arrays. Metrics are scalars
    of this step: "total" (the loss), the objective's own, "grad_norm" (of the networks, before clipping) and
    "learning_rate". With `accumulation` > 1 gradients are averaged over that many micro-batches; batch statistics
    are then those of a micro-batch. Parameters that are split over "fsdp" are gathered for the step and their
    gradients split again; those of `layers`, the beginning of names in the trunk, are gathered where the trunk
    uses them.
    """
    gradients = make_gradients(embed=embed, reads=reads, objective=objective, mesh=mesh)

    def accumulated_gradients(params, running, fixed, store, batch):
        def add(carry, batch):
            running, total = carry
            gradient, metrics, running = gradients(params, running, fixed, store, batch)
            return (running, jax.tree.map(jnp.add, total, gradient)), metrics

        start = running, jax.tree.map(jnp.zeros_like, params)
        (running, total), metrics = jax.lax.scan(add, start, micro_batches(batch, accumulation))
        gradient = jax.tree.map(lambda x: x / accumulation, total)
        return gradient, jax.tree.map(lambda x: x.mean(axis=0), metrics), running

    def train_step(state: TrainState, store: Any, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        batch = jax.lax.with_sharding_constraint(batch, batch_sharded(mesh))
        draw = refreshed(objective, state.draw, state.step)
        compute = gradients if accumulation == 1 else accumulated_gradients
        teacher = state.teacher or {"params": None, "batch_stats": None}
        whole, whole_teacher = (gathered(mesh, params, layers) for params in (state.params, teacher["params"]))
        carried = jax.lax.with_sharding_constraint(state.carried, replicated(mesh))
        running = Running(state.batch_stats, teacher["batch_stats"], carried)
        fixed = Fixed(whole_teacher, draw, state.step // steps_per_epoch)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            gradient, metrics, running = compute(whole, running, fixed, store, batch)
        gradient = jax.lax.with_sharding_constraint(gradient, parameters_sharded(mesh, gradient))
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        networks = {name: g for name, g in gradient.items() if objective.init is None or name != objective.reads}
        metrics |= {"grad_norm": optax.global_norm(networks), "learning_rate": schedule(state.step)}
        params = optax.apply_updates(state.params, updates)
        if objective.teacher is not None:
            momentum = objective.teacher.momentum((state.step + 1) / total_steps)
            teacher = {
                "params": moved(teacher["params"], params, momentum),
                "batch_stats": running.teacher_stats,
            }
            metrics |= {"teacher_momentum": momentum}
        new_state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=running.batch_stats,
            opt_state=opt_state,
            draw=draw,
            teacher=None if objective.teacher is None else teacher,
            carried=running.carried,
        )
        return new_state, metrics

    return train_step


def make_gradients(*, embed: Embed, reads: Reads, objective: Objective, mesh: Mesh) -> Callable:
    """(params, `Running`, `Fixed`, store, batch) -> (gradient, metrics, `Running`) of a (micro-)batch."""

    def of_views(params: Any, batch_stats: Any, groups: Sequence[Array], **kept: Array) -> tuple[Embedded, Any]:
        def one(images: Array, batch_stats: Any) -> tuple[tuple[Array, Array], Any]:
            return embed(params, batch_stats, images, **kept)

        return embed_views(one, jax.lax.with_sharding_constraint(groups, batch_sharded(mesh)), batch_stats)

    def gradients(params, running, fixed, store, batch):
        groups, labels = reads.views(store, batch, fixed.epoch), reads.labels(store, batch)
        teacher, teacher_stats = None, running.teacher_stats
        if objective.teacher is not None:  # Targets are global views, the first group.
            teacher, teacher_stats = of_views(fixed.teacher, teacher_stats, groups[:1])
            teacher = teacher._replace(params={name: fixed.teacher[name] for name in objective.teacher.groups})

        def loss_of(params):
            kept = objective.kept(fixed.draw)
            embedded, batch_stats = of_views(params, running.batch_stats, groups, **kept)
            gaps = reads.gaps(batch, fixed.epoch)
            seen = Seen(embedded.z, embedded.h, teacher, running.carried, gaps, labels)
            loss, metrics, carried = objective.of(params[objective.reads], seen, fixed.draw, fixed.epoch + 1)
            after = Running(batch_stats, teacher_stats, carried)
            return loss, ({"total": loss} | metrics, after)

        (_, (metrics, running)), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        return gradient, metrics, running

    return gradients


def embed_views(embed: Callable, groups: Sequence[Array], batch_stats: Any) -> tuple[Embedded, Any]:
    """Embeddings of all views [v, b, …], and the batch statistics after them.

    Args:
      embed: (images [b·v, …], batch_stats) -> ((h, z) [b·v, …], batch_stats).
      groups: the views of each size [b, v, …], which go through the encoder as one batch.
      batch_stats: before them.
    """
    before: list[Array] = []
    after: list[Array] = []
    for images in groups:
        b, v = images.shape[:2]
        (h, z), batch_stats = embed(images.reshape(b * v, *images.shape[2:]), batch_stats)
        before.append(h.reshape(b, v, -1).swapaxes(0, 1))
        after.append(z.reshape(b, v, -1).swapaxes(0, 1))
    return Embedded(jnp.concatenate(after), jnp.concatenate(before)), batch_stats


def moved(teacher: dict[str, Any], params: dict[str, Any], momentum: Array | float) -> dict[str, Any]:
    """The teacher's parameters after a step: m·teacher + (1 − m)·networks, group by group."""
    return optax.incremental_update({name: params[name] for name in teacher}, teacher, 1 - momentum)


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
