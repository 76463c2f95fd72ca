"""A training run, read top to bottom: set-up, loop, hooks. The mathematics is elsewhere."""

import contextlib
import itertools
import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
from clu import parameter_overview
from jax.sharding import Mesh

from hamjepa_jax import build, diagnose, nn
from hamjepa_jax import config as config_lib
from hamjepa_jax import evaluate as evaluate_lib
from hamjepa_jax.data import Source, is_encoded, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.inputs import open_inputs
from hamjepa_jax.objectives import Objective
from hamjepa_jax.restore import initial_state, open_checkpoints
from hamjepa_jax.training import monitor, processes
from hamjepa_jax.training import workdir as workdir_lib
from hamjepa_jax.training.mesh import make_mesh, replicated, state_sharding
from hamjepa_jax.training.preemption import StopRequest
from hamjepa_jax.training.profile import Profiler, Window
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.writer import MetricsWriter

ConfigDict = ml_collections.ConfigDict
Callback = Callable[[int, TrainState, dict[str, float]], None]
log = logging.getLogger(__name__)

# What the progress line shows of a step's metrics, where the objective has it.
SHOWN = (
    "total", "pred", "sigreg", "budget", "var", "cov", "logdet", "mean", "grad_norm",
    "horizon", "spectrum_lam_cond",
    "q_mean_square", "p_mean_square", "z_mean_square", "q_min_std", "p_min_std", "z_min_std",
    "q_logdet", "p_logdet", "q_pr", "p_pr", "q_eigmax", "p_eigmax", "potential_variance",
)  # fmt: skip


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    source: Source | None = None,
    objective: Callable[[ConfigDict, nn.Predictor], Objective] | None = None,
    callbacks: Sequence[Callback] = (),
    profile: Window | None = None,
    debug_nans: bool = False,
) -> dict | None:
    """Trains, checkpoints and evaluates; called again on the same workdir it goes on exactly where it was.

    Args:
      config: of configs/common.py's form; checked before any compute.
      workdir: folder of the run, created if missing.
      source: images to train and evaluate on, in place of opening config.data.source.
      objective: (config, predictor) -> objective, in place of the one that config.objective names. It is not part
        of the config: to go on with a run, pass it again.
      callbacks: called as callback(step, state, metrics) whenever metrics are logged.
      profile: steps to trace into WORKDIR/profile.
      debug_nans: look at every step at once, and search one that is not finite for where that began.

    Returns:
      The final {"step", "trained": metrics, …}, as in metrics.json; None if a signal asked the run to stop.

    Raises:
      UserError: for settings, data or a workdir that cannot be used, and for a loss that is not finite.
    """
    with StopRequest() as stop, contextlib.ExitStack() as resources:
        return _run(
            config,
            pathlib.Path(workdir),
            source,
            objective or build.build_objective,
            callbacks,
            profile,
            debug_nans,
            stop,
            resources,
        )


def _run(
    config: ConfigDict,
    workdir: pathlib.Path,
    source: Source | None,
    make_objective: Callable[[ConfigDict, nn.Predictor], Objective],
    callbacks: Sequence[Callback],
    profile: Window | None,
    debug_nans: bool,
    stop: StopRequest,
    resources: contextlib.ExitStack,
) -> dict | None:
    # -- Devices, settings, data: a mistake that one process meets ends all ------
    with processes.agreed():
        config_lib.validate(config, jax.device_count())
        mesh = make_mesh(config.mesh.fsdp)
        source = open_source(config.data.source, loader=config.data.loader) if source is None else source
        config_lib.validate_durations(config, len(source.train))
        if not is_encoded(source.test):
            config_lib.validate_images(config, source.test.image(0).shape)
    with processes.agreed():
        if processes.is_first():
            resources.enter_context(workdir_lib.claim(workdir, config, source.fingerprint()))
    workdir_lib.use_compilation_cache(config.log.compilation_cache, workdir)
    if debug_nans:
        config = diagnose.one_step_at_a_time(config)
    with processes.agreed():
        inputs = open_inputs(config, source.train, mesh)
    for warning in config_lib.warnings(config):
        log.warning("%s", warning)
    log.info("%s", monitor.layout_line(config.train.batch_size, mesh))
    if inputs.note:
        log.info("%s", inputs.note)

    # -- Model and optimiser: shapes first, weights only where there is no checkpoint ------
    model = build.build_model(config)
    training = build.build_training(config, model, len(source.train), mesh, make_objective, inputs.views)
    abstract, init = initial_state(config, training, mesh)
    log.info("%s", parameter_overview.get_parameter_overview(abstract.params, include_stats=False))

    # -- Checkpoints: resume or start ------
    checkpoints = resources.enter_context(open_checkpoints(config, workdir, read_only=False))
    state = checkpoints.restore(abstract)
    if state is None:
        state = init()
    first_step, total = int(state.step), training.total_steps
    if (total - first_step) % config.train.steps_per_dispatch:
        raise UserError(
            f"train.steps_per_dispatch {config.train.steps_per_dispatch}: does not divide the {total - first_step} "
            f"step(s) left after the checkpoint of step {first_step}; set it to 1."
        )
    checkpoints.drop_after(first_step)
    if first_step < total:
        with processes.agreed():
            checkpoints.check_room(abstract)
    if first_step:
        log.info("going on from the checkpoint of step %d", first_step)

    profiler = Profiler(
        workdir, profile, first_step=first_step, total=total, steps_per_dispatch=config.train.steps_per_dispatch
    )
    resources.callback(profiler.close)

    # -- The compiled step, and its batches ------
    if first_step < total:
        stream = resources.enter_context(contextlib.closing(inputs.batches(first_step)))
        first_batch = next(stream)
        step_fn = compile_step(training, mesh, abstract, inputs.store, first_batch, donate=not debug_nans)
        if debug_nans:
            locate = diagnose.make_locator(config, model, inputs.views, make_objective, training.steps_per_epoch)
            step_fn = diagnose.checked(step_fn, locate)
        # As an iterator, which lets go of what it has given: the batch would stay on the devices to the end.
        batches = itertools.chain(iter([first_batch]), stream)
        del first_batch

    # -- Hooks ------
    is_due = schedule_hooks(config, training)
    on_device = None if config.data.store != "device" or is_encoded(source.train) else inputs.store
    evaluator = evaluate_lib.Evaluator(config, model, source, mesh, train_images=on_device)
    writer = MetricsWriter(workdir, first_step=first_step, tensorboard=config.log.tensorboard)
    resources.callback(writer.close)
    clock, watch, warned = monitor.Clock(), monitor.Watch(workdir), set()
    watch.last_saved = first_step or None

    # -- Loop ------
    features = None  # Of the last step's state, once extracted.
    stop.deferring = True
    loop_start, evaluating, stopping = time.perf_counter(), 0.0, False
    for step in range(first_step, total, config.train.steps_per_dispatch):
        with profiler.step(step):
            state, metrics = step_fn(state, inputs.store, clock.waiting_for(batches))
        step += config.train.steps_per_dispatch
        with clock.paused():
            profiler.taken(step, metrics)
        checkpoints.check()
        stopping = stop.agreed(mesh)
        clock.advance(config.train.steps_per_dispatch)
        watch.push(step, metrics)
        epoch = step / training.steps_per_epoch

        if is_due["log"](step):
            values = watch.latest()
            speed = clock.report(batch_size=config.train.batch_size, steps_left=total - step)
            shown = {name: values[name] for name in SHOWN if name in values}
            log.info("%s", monitor.progress_line(step, total, epoch, shown, speed))
            for name, warning in monitor.collapse_warnings(values).items():
                if name not in warned:
                    log.warning("step %d: %s", step, warning)
                    warned.add(name)
            record = {f"train/{name}": value for name, value in values.items()}
            writer.write_scalars(step, {"epoch": epoch, **record, **speed})
            for callback in callbacks:
                callback(step, state, values)

        evaluated = {}
        if is_due["evaluate"](step):
            with clock.paused():
                watch.latest()
                start = time.perf_counter()
                try:
                    features = evaluator.features(state)
                    evaluated = evaluator.in_training(features)
                except UserError:  # The fault of test images: what was trained is kept.
                    checkpoints.save(step, state, {})
                    raise
                seconds = time.perf_counter() - start
            if step < total:
                features = None  # Those of many images take gigabytes of host memory.
            evaluating += seconds
            record = {f"eval/{name}": value for name, value in evaluated.items()}
            share = evaluating / (time.perf_counter() - loop_start)
            cost = {"perf/evaluation_s": seconds, "perf/evaluation_share": share}
            writer.write_scalars(step, {"epoch": epoch, **record, **cost})
            log.info("%s", monitor.evaluation_line(step, epoch, evaluated, seconds))

        if is_due["checkpoint"](step) or stopping:
            with clock.paused():
                watch.latest()  # Nothing that is not finite is ever saved.
                writer.flush()
                checkpoints.save(step, state, evaluated)
                watch.last_saved = step

        if stopping:
            break

    # -- The end: nothing in flight, then the whole evaluation ------
    checkpoints.wait()
    stop.deferring = False
    if stopping and step < total:
        log.info("%s: saved step %d of %d; the same command goes on from there", stop.requested, step, total)
        return None
    writer.flush()
    results, summary = evaluator.at_the_end(state, init, features=features)
    if processes.is_first():
        table = evaluate_lib.write_results(workdir, total, results, summary)
        (workdir / workdir_lib.FINISHED_FILE).touch()
        log.info("\n%s\n%s", table, evaluate_lib.where_results_are(workdir))
    processes.wait_for_all("the results to be written")
    return {"step": total, **results}


def compile_step(
    training: build.Training, mesh: Mesh, state: TrainState, store: Any, batch: Any, *, donate: bool = True
) -> Callable:
    """The step compiled ahead of time for these shapes: it cannot compile a second time later on."""
    shardings = state_sharding(mesh, state), replicated(mesh)
    step = jax.jit(training.step, donate_argnums=(0,) if donate else (), out_shardings=shardings)
    start = time.perf_counter()
    compiled = step.lower(state, store, batch).compile()
    log.info("compiled the training step in %.1f s", time.perf_counter() - start)
    return compiled


def schedule_hooks(config: ConfigDict, training: build.Training) -> dict[str, Callable[[int], bool]]:
    """{"log", "evaluate", "checkpoint"}: step -> whether it is due; each is at the last step, unless turned off."""
    k, total = config.train.steps_per_dispatch, training.total_steps

    def hook(name: str) -> Callable[[int], bool]:
        text = config[name].every
        if not text:
            return lambda step: False
        every = config_lib.duration_steps(
            f"{name}.every", text, steps_per_epoch=training.steps_per_epoch, total_steps=total
        )
        return lambda step: step == total or step // every > (step - k) // every

    return {name: hook(name) for name in ("log", "evaluate", "checkpoint")}
