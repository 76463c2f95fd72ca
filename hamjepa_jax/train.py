"""A training run, read top to bottom: set-up, loop, hooks. The mathematics is elsewhere."""

import contextlib
import functools
import itertools
import logging
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections
from clu import parameter_overview

from hamjepa_jax import config as config_lib
from hamjepa_jax.data import Source, is_encoded
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import Others, evaluator_of, open_others, results_in, write_results
from hamjepa_jax.files import user_path
from hamjepa_jax.run import hooks as hooks_lib
from hamjepa_jax.run import nan_search
from hamjepa_jax.run import workdir as workdir_lib
from hamjepa_jax.run.hooks import Callback, Hook, Moment, Outputs
from hamjepa_jax.run.inputs import Opened
from hamjepa_jax.run.online_probe import Beside, online_probe_of
from hamjepa_jax.run.preemption import StopRequest
from hamjepa_jax.run.profile import Profiler, Window
from hamjepa_jax.run.progress import progress
from hamjepa_jax.run.restore import open_checkpoints
from hamjepa_jax.run.seeds import Alone, Together
from hamjepa_jax.run.setup import MakeObjective, Setup, set_up
from hamjepa_jax.training import monitor, processes
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.trackers import check_installed

ConfigDict = ml_collections.ConfigDict
log = logging.getLogger(__name__)


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    source: Source | None = None,
    objective: MakeObjective | None = None,
    callbacks: Sequence[Callback] = (),
    profile: Window | None = None,
    debug_nans: bool = False,
) -> dict | None:
    """Trains, checkpoints and evaluates; called again on the same workdir it goes on exactly where it was.

    Args:
      config: a config, see `hamjepa_jax.config.default_config`; checked before any compute.
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
    workdir = user_path(workdir, "--workdir")
    with StopRequest() as stop, contextlib.ExitStack() as resources:
        # -- Devices, images, networks, training: a mistake ends the run here ------
        config = nan_search.one_step_at_a_time(config) if debug_nans else config
        with processes.agreed():
            config = workdir_lib.with_own_dtype(config, [workdir])
            workdir_lib.check_begun([config], [workdir])
        setup = set_up(config, source=source, objective=objective)
        members, shown = Alone(setup), hooks_lib.shown_terms(setup.config, objective)

        # -- Train: the steps that are left ------
        (out,), (state, step, features) = train_members(
            setup, members, [setup.config], [workdir], stop, resources, [callbacks], shown, profile, debug_nans
        )
        if step < setup.training.total_steps:
            log.info(
                "%s: saved step %d of %d; the same command goes on from there",
                *(stop.requested, step, setup.training.total_steps),
            )
            return None

        # -- The end: the whole evaluation ------
        return _finish(setup, workdir, out, state, features, stop)


def train_seeds(
    configs: Sequence[ConfigDict],
    workdirs: Sequence[str | pathlib.Path],
    source: Source,
    *,
    callbacks: Sequence[Sequence[Callback]] | None = None,
) -> bool:
    """Trains runs that differ in their seed alone up to their last checkpoint, all in one program.

    Each workdir is afterwards as `train` would have left it before its final evaluation, up to rounding: `train`
    goes on from there. The device holds the state and the activations of all runs.

    Args:
      configs: of the runs, alike but for the seed.
      workdirs: one for each; those begun must stand at one step.
      source: the configs' data.
      callbacks: those of each run, see `train`.

    Returns:
      Whether the runs are at their last step; False if a signal asked to stop, after saving all.

    Raises:
      UserError: for settings that cannot be used, runs that stand at different steps, or a loss that is not finite.
    """
    workdirs = [user_path(workdir, "--workdir") for workdir in workdirs]
    with StopRequest() as stop, contextlib.ExitStack() as resources:
        configs = [config_lib.complete(config.copy_and_resolve_references()) for config in configs]
        with processes.agreed():
            first = workdir_lib.with_own_dtype(configs[0], workdirs)
            workdir_lib.check_begun(configs, workdirs)
        setup = set_up(first, source=source)
        for config in configs:
            if config.encoder.dtype == "auto":
                config.encoder.dtype = setup.config.encoder.dtype
        members = Together(setup, configs)
        shown = hooks_lib.shown_terms(setup.config, None)
        callbacks = callbacks or [()] * len(configs)
        _, (_, step, _) = train_members(setup, members, configs, workdirs, stop, resources, callbacks, shown)
        return step == setup.training.total_steps


def train_members(
    setup: Setup,
    members: Alone | Together,
    configs: Sequence[ConfigDict],
    workdirs: Sequence[pathlib.Path],
    stop: StopRequest,
    resources: contextlib.ExitStack,
    callbacks: Sequence[Sequence[Callback]],
    shown: Sequence[str] | None,
    profile: Window | None = None,
    debug_nans: bool = False,
) -> tuple[list[Outputs], tuple[TrainState, int, Any]]:
    """Opens what the runs of one program need, and trains them; see `train` and `_loop`."""
    with processes.agreed():  # Before hours of decoding.
        others = open_others(setup.config, setup.source)
    opened = _open(setup, configs, workdirs, stop, resources)
    outputs = [
        _outputs(setup, config, workdir, opened, others, own, resources)
        for config, workdir, own in zip(configs, workdirs, callbacks, strict=True)
    ]
    return outputs, _loop(setup, members, opened, outputs, stop, shown, resources, profile, debug_nans)


def _open(
    setup: Setup,
    configs: Sequence[ConfigDict],
    workdirs: Sequence[pathlib.Path],
    stop: StopRequest,
    resources: contextlib.ExitStack,
) -> Opened:
    """Makes the workdirs these runs' own, and opens their images."""
    stop.check()
    with processes.agreed():
        if processes.is_first():
            check_installed(hooks_lib.trackers_of(setup.config))
            fingerprint = setup.source.fingerprint()
            for config, workdir in zip(configs, workdirs, strict=True):
                resources.enter_context(workdir_lib.claim(workdir, config, fingerprint))
    workdir_lib.use_compilation_cache(setup.config.log.compilation_cache, workdirs[0])
    with processes.agreed(), stop.at_once():
        opened = setup.inputs.open()
    labelled = setup.source.labelled or setup.config.evaluate.source is not None
    for warning in config_lib.warnings(setup.config, labelled=labelled):
        log.warning("%s", warning)
    log.info("%s", monitor.layout_line(setup.config.train.batch_size, setup.mesh))
    if opened.note:
        log.info("%s", opened.note)
    log.info("%s", monitor.size_line(setup.abstract.params))
    if log.isEnabledFor(logging.DEBUG):
        log.debug("%s", parameter_overview.get_parameter_overview(setup.abstract.params, include_stats=False))
    return opened


def _outputs(
    setup: Setup,
    config: ConfigDict,
    workdir: pathlib.Path,
    opened: Opened,
    others: Others,
    callbacks: Sequence[Callback],
    resources: contextlib.ExitStack,
) -> Outputs:
    """Checkpoints, log, watch and evaluator of one run; the log is opened once the first step is known."""
    in_store = setup.config.data.store == "device" and not is_encoded(setup.source.train)
    images = opened.images if in_store else None
    return Outputs(
        config=config,
        workdir=workdir,
        checkpoints=resources.enter_context(open_checkpoints(config, workdir, read_only=False)),
        watch=monitor.Watch(workdir),
        evaluator=evaluator_of(config, setup.model, setup.source, setup.mesh, others=others, train_images=images),
        callbacks=callbacks,
    )


def _loop(
    setup: Setup,
    members: Alone | Together,
    opened: Opened,
    outputs: Sequence[Outputs],
    stop: StopRequest,
    shown: Sequence[str] | None,
    resources: contextlib.ExitStack,
    profile: Window | None = None,
    debug_nans: bool = False,
) -> tuple[TrainState, int, Any]:
    """Trains from the newest checkpoints to the last step, or to the step at which a signal asked to stop.

    Returns:
      (state, its step, features of the last step's images if they are known).
    """
    # -- Resume or start ------
    probe = online_probe_of(setup, together=len(outputs) > 1)
    state, first_step = _restored(setup, members, outputs, probe)
    total, k = setup.training.total_steps, setup.config.train.steps_per_dispatch
    with processes.agreed():  # Only the first process has a log, and trackers that may fail.
        for out in outputs:
            out.open_log(first_step)
            out.watch.last_saved = first_step or None
            resources.callback(out.writer.close)
    profiler = Profiler(outputs[0].workdir, profile, first_step=first_step, total=total, steps_per_dispatch=k)
    resources.callback(profiler.close)
    if first_step == total:
        return state, total, None

    # -- The compiled step, and its batches ------
    stop.check()
    stream = resources.enter_context(contextlib.closing(members.batches(opened, first_step)))
    batches, first_batch = _peeked(stream)
    step_fn = members.compile(state.replace(probe=None), opened.store, first_batch, donate=not debug_nans)
    del first_batch
    if debug_nans:
        step_fn = nan_search.checked(step_fn, nan_search.make_locator(setup))
    if probe is not None:
        step_fn = probe.step(step_fn)
    stop.check()

    # -- Hooks, in the order of their work ------
    clock = monitor.Clock()
    finite = hooks_lib.Finite(outputs, members)
    scheduled = outputs, members, finite, clock, setup.training
    evaluate = hooks_lib.Evaluate(*scheduled)
    with progress(first_step, total) as line:
        hooks: list[Hook] = [
            hooks_lib.EndTrace(profiler, clock),
            hooks_lib.CheckSaves(outputs),
            hooks_lib.Stop(stop, setup.mesh),
            finite,
            hooks_lib.Log(*scheduled, shown=shown, progress=line),
            evaluate,
            hooks_lib.Save(*scheduled),
        ]

        # -- Loop ------
        for step in range(first_step + k, total + 1, k):
            with profiler.step(step - k):
                state, metrics = step_fn(state, opened.store, clock.waiting_for(batches))
            clock.advance(k)
            line.advance(k)
            now = Moment(step, step / setup.training.steps_per_epoch, state, metrics)
            for hook in hooks:
                if hook.due(now):
                    hook(now)
            if now.stopping:
                break
    for i, out in enumerate(outputs):  # Nothing stays in flight.
        out.checkpoints.settle(step, members.state(state, i))
        out.writer.flush()
    return state, step, evaluate.features


def _restored(
    setup: Setup, members: Alone | Together, outputs: Sequence[Outputs], probe: Beside | None
) -> tuple[TrainState, int]:
    """(the state of all runs by their newest checkpoints, or from the start; its step)."""
    states, like = [], setup.abstract if probe is None else setup.abstract.replace(probe=probe.abstract)
    for out in outputs:
        state = out.checkpoints.restore(like)
        state = setup.first_state(out.config) if state is None else state
        if probe is not None and state.probe is None:
            state = state.replace(probe=probe.first(out.config))
        states.append(state)
    steps = [int(state.step) for state in states]
    if len(set(steps)) > 1:
        raise UserError(
            f"--parallel_seeds: the runs stand at steps {', '.join(map(str, steps))}; leave the flag out, and each "
            f"goes on by itself."
        )
    first_step, left, k = steps[0], setup.training.total_steps - steps[0], setup.config.train.steps_per_dispatch
    if left % k:
        raise UserError(
            f"train.steps_per_dispatch {k}: does not divide the {left} step(s) left after the checkpoint of step "
            f"{first_step}; set it to 1."
        )
    for out in outputs:
        out.checkpoints.drop_after(first_step)
        if left:
            with processes.agreed():
                out.checkpoints.check_room(like)
    if first_step:
        log.info("going on from the checkpoint of step %d", first_step)
    return members.joined(states), first_step


def _peeked(batches: Iterator[Any]) -> tuple[Iterator[Any], Any]:
    """The same batches, and the first of them.

    The iterator drops a batch that it has given; otherwise the first one would stay on the devices to the end.
    """
    first = next(batches)
    return itertools.chain(iter([first]), batches), first


def _finish(
    setup: Setup, workdir: pathlib.Path, out: Outputs, state: TrainState, features: Any, stop: StopRequest
) -> dict:
    """Evaluates the last step's weights, and writes the results."""
    total = setup.training.total_steps
    check = functools.partial(stop.check, "training is done; the same command evaluates")
    features = out.evaluator.features(state) if features is None else features
    epoch = config_lib.epoch_at(total, setup.training.steps_per_epoch)
    results, summary = out.evaluator.at_the_end(state, setup.init, epoch=epoch, features=features, safe_point=check)
    neighbours = out.evaluator.neighbours(features)
    if processes.is_first():
        write_results(workdir, setup.config, total, results, summary, neighbours)
        out.writer.write_results(results_in(workdir, total, results))
    out.checkpoints.settle(total, state)
    if processes.is_first():
        (workdir / workdir_lib.FINISHED_FILE).touch()
    processes.wait_for_all("the results to be written")
    return {"step": total, **results}
