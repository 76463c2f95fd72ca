"""Several seeds of one run trained at once, by vmap over the training step."""

import contextlib
import functools
import logging
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax import build
from hamjepa_jax import config as config_lib
from hamjepa_jax import evaluate as evaluate_lib
from hamjepa_jax.data import Source, index_batches, is_encoded
from hamjepa_jax.errors import UserError
from hamjepa_jax.inputs import open_inputs
from hamjepa_jax.restore import abstract_state, open_checkpoints
from hamjepa_jax.train import schedule_hooks
from hamjepa_jax.training import monitor
from hamjepa_jax.training import workdir as workdir_lib
from hamjepa_jax.training.mesh import batch_sharded, make_mesh, replicated
from hamjepa_jax.training.preemption import StopRequest
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.writer import MetricsWriter

Array = jax.Array
ConfigDict = ml_collections.ConfigDict
log = logging.getLogger(__name__)


def train_seeds(configs: Sequence[ConfigDict], workdirs: Sequence[pathlib.Path], source: Source) -> bool:
    """Trains runs that differ in their seed alone up to their last checkpoint, all in one program.

    Each workdir is afterwards as `train` would have left it before its final evaluation, up to rounding: `train`
    goes on from there. The device holds the state and the activations of all runs.

    Args:
      configs: of the runs, alike but for the seed.
      workdirs: one for each; those begun must stand at one step.
      source: the configs' data.

    Returns:
      Whether the runs are at their last step; False if a signal asked to stop, after saving all.

    Raises:
      UserError: for settings that cannot be used, runs that stand at different steps, or a loss that is not finite.
    """
    with StopRequest() as stop, contextlib.ExitStack() as resources:
        return _run(configs, workdirs, source, stop, resources)


def _run(
    configs: Sequence[ConfigDict],
    workdirs: Sequence[pathlib.Path],
    source: Source,
    stop: StopRequest,
    resources: contextlib.ExitStack,
) -> bool:
    # -- Settings, data, model: those of the first run, the seeds apart ------
    config, mesh = configs[0], make_mesh()
    config_lib.validate(config, mesh.size)
    config_lib.validate_durations(config, len(source.train))
    on_device = config.data.store == "device" and not is_encoded(source.train)
    if not on_device or config.train.steps_per_dispatch > 1 or config.mesh.fsdp > 1 or jax.process_count() > 1:
        raise UserError(
            "--parallel_seeds: needs data.store='device', images in an array, train.steps_per_dispatch=1, "
            "mesh.fsdp=1 and a single process."
        )
    config_lib.validate_images(config, source.test.image(0).shape)
    for one, workdir in zip(configs, workdirs, strict=True):
        resources.enter_context(workdir_lib.claim(workdir, one, source.fingerprint()))
        workdir_lib.use_compilation_cache(one.log.compilation_cache, workdir)
    inputs = open_inputs(config, source.train, mesh)
    model = build.build_model(config)
    training = build.build_training(config, model, len(source.train), mesh)
    init = jax.jit(training.init, out_shardings=replicated(mesh))

    # -- Checkpoints: all runs go on from one step ------
    abstract = abstract_state(lambda: training.init(build.init_key(config)), mesh)
    checkpoints = [open_checkpoints(one, w, read_only=False) for one, w in zip(configs, workdirs, strict=True)]
    for kept in checkpoints:
        resources.enter_context(kept)
    states = [
        kept.restore(abstract) or init(build.init_key(one)) for one, kept in zip(configs, checkpoints, strict=True)
    ]
    steps = [int(state.step) for state in states]
    if len(set(steps)) > 1:
        raise UserError(
            f"--parallel_seeds: the runs stand at steps {', '.join(map(str, steps))}; leave the flag out, and each "
            f"goes on by itself."
        )
    first_step, total = steps[0], training.total_steps
    for kept in checkpoints:
        kept.drop_after(first_step)
        if first_step < total:
            kept.check_room(abstract)
    state = jax.jit(stack, out_shardings=replicated(mesh))(*states)
    del states

    # -- The step of all seeds, and its hooks ------
    seeds = jnp.asarray([one.seed for one in configs], jnp.int32)
    all_steps = jax.jit(
        make_step(config, model, len(source.train), mesh), donate_argnums=1, out_shardings=replicated(mesh)
    )
    of_seed = jax.jit(unstack, out_shardings=replicated(mesh))
    is_due = schedule_hooks(config, training)
    evaluators = [evaluate_lib.Evaluator(one, model, source, mesh, train_images=inputs.store) for one in configs]
    writers = [MetricsWriter(w, first_step=first_step, tensorboard=config.log.tensorboard) for w in workdirs]
    watches = [monitor.Watch(w) for w in workdirs]
    for writer, watch in zip(writers, watches, strict=True):
        resources.callback(writer.close)
        watch.last_saved = first_step or None

    # -- Loop ------
    stop.deferring = True
    batches = _index_batches(configs, first_step, len(source.train), mesh)
    clock, waiting, step = monitor.Clock(), None, first_step
    while step < total:
        state, metrics = all_steps(seeds, state, inputs.store, clock.waiting_for(batches))
        step += 1
        clock.advance(1)
        if waiting is not None:  # Looked at one step late, so that the device never waits for the host.
            _push(watches, *waiting)
        waiting = (step, metrics)
        epoch = step / training.steps_per_epoch
        due = {name: hook(step) for name, hook in is_due.items()}
        stopping = stop.requested is not None  # Read once: a signal that comes later finds the next step.
        due["checkpoint"] |= stopping
        if any(due.values()):
            _push(watches, *waiting)
            waiting = None

        if due["log"]:
            speed = clock.report(batch_size=config.train.batch_size * len(configs), steps_left=total - step)
            for writer, watch in zip(writers, watches, strict=True):
                record = {f"train/{name}": value for name, value in watch.latest().items()}
                writer.write_scalars(step, {"epoch": epoch, **record, **speed})
            totals = {
                f"total of seed {one.seed}": w.latest()["total"] for one, w in zip(configs, watches, strict=True)
            }
            log.info("%s", monitor.progress_line(step, total, epoch, totals, speed))

        if due["evaluate"] or due["checkpoint"]:
            with clock.paused():
                for i, (kept, writer, watch) in enumerate(zip(checkpoints, writers, watches, strict=True)):
                    one_state, evaluated = of_seed(state, i), {}
                    if due["evaluate"]:
                        start = time.perf_counter()
                        evaluated = evaluators[i].in_training(evaluators[i].features(one_state))
                        record = {f"eval/{name}": value for name, value in evaluated.items()}
                        seconds = time.perf_counter() - start
                        writer.write_scalars(step, {"epoch": epoch, **record, "perf/evaluation_s": seconds})
                    if due["checkpoint"]:
                        watch.latest()  # Nothing that is not finite is ever saved.
                        writer.flush()
                        kept.save(step, one_state, evaluated)
                        watch.last_saved = step
        if stopping:
            break

    for kept in checkpoints:
        kept.wait()
    return step == total


# All runs stand at one step. If each had its own, every branch that depends on it, such as the refresh of the
# random projections, would be computed at every step.
_AXES = TrainState(step=None, params=0, batch_stats=0, opt_state=0, draw=0)


def make_step(
    config: ConfigDict, model: build.Model, num_train: int, mesh: Mesh
) -> Callable[[Array, TrainState, Any, Array], tuple[TrainState, dict[str, Array]]]:
    """The training step of all runs, (seeds [n], `stack`ed state, store, index [n, b]) -> (state, metrics [n])."""

    def step_of(seed, state, store, index):
        objective = functools.partial(build.build_objective, seed=seed)
        views = build.build_views(config, mesh, seed)
        return build.build_training(config, model, num_train, mesh, objective, views).step(state, store, index)

    return jax.vmap(step_of, in_axes=(0, _AXES, None, 0), out_axes=(_AXES, 0))


def stack(*states: TrainState) -> TrainState:
    """The states of all runs as one, along a new first axis of everything but the step."""
    return jax.tree.map(lambda *x: jnp.stack(x), *states).replace(step=states[0].step)


def unstack(state: TrainState, i: Array | int) -> TrainState:
    """The state of run i."""
    return jax.tree.map(lambda x: x[i], state.replace(step=None)).replace(step=state.step)


def _push(watches: Sequence[monitor.Watch], step: int, metrics: dict[str, Any]) -> None:
    """Hands each run its metrics of a step, and so checks that they are finite."""
    host = jax.device_get(metrics)
    for i, watch in enumerate(watches):
        watch.push(step, {name: value[i] for name, value in host.items()})


def _index_batches(
    configs: Sequence[ConfigDict], first_step: int, num_train: int, mesh: Mesh
) -> Iterator[jax.Array]:
    """Example indices [seeds, b] of every step: each run's own order."""
    size, sharding = configs[0].train.batch_size, batch_sharded(mesh, axis=1)
    for rows in zip(
        *(index_batches(c.seed, first_step, n=num_train, batch_size=size) for c in configs), strict=True
    ):
        index = np.stack(rows)
        yield jax.make_array_from_callback(index.shape, sharding, lambda part, index=index: index[part])
