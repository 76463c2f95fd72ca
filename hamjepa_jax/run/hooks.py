"""Hooks: objects that say when they are due after a step, and then do their work.

Each works on all runs of the program at once, of which there is one unless several seeds are trained together.
"""

import dataclasses
import functools
import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax import build, parts
from hamjepa_jax import config as config_lib
from hamjepa_jax.run.preemption import StopRequest
from hamjepa_jax.run.profile import Profiler
from hamjepa_jax.run.progress import Progress
from hamjepa_jax.run.seeds import Alone, Together
from hamjepa_jax.training import monitor
from hamjepa_jax.training.checkpoint import Checkpoints
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.writer import MetricsWriter

ConfigDict = ml_collections.ConfigDict
Callback = Callable[[int, TrainState, dict[str, float]], None]
MOST_SHOWN = 12  # Metrics on the progress line of an objective that does not say which.
log = logging.getLogger("hamjepa_jax.train")


@dataclasses.dataclass
class Moment:
    """The moment after a dispatch of the step.

    Attributes:
      step: optimiser steps taken.
      epoch: the same in epochs.
      state: of all runs.
      metrics: of the dispatch, on the devices.
      stopping: whether the loop ends here.
      evaluated: {name: value} for each run, after an evaluation at this step.
    """

    step: int
    epoch: float
    state: TrainState
    metrics: dict[str, jax.Array]
    stopping: bool = False
    evaluated: list[dict[str, float]] | None = None


class Evaluates(Protocol):
    """The methods of an evaluator that a run calls, see `evaluate.Evaluator`."""

    def features(self, state: TrainState) -> Sequence[np.ndarray]: ...

    def in_training(self, features: Sequence[np.ndarray], state: TrainState) -> dict[str, float]: ...

    def at_the_end(self, state: TrainState, init: Callable[[], TrainState], **known: Any) -> tuple[dict, dict]: ...

    def neighbours(self, features: Sequence[np.ndarray]) -> Any: ...


class Hook(Protocol):
    """Something to do after a dispatch."""

    def due(self, now: Moment) -> bool: ...

    def __call__(self, now: Moment) -> None: ...


@dataclasses.dataclass
class Outputs:
    """The files of one run, and the objects that watch it.

    Attributes:
      config: of the run.
      workdir: its folder.
      checkpoints: in the workdir.
      watch: looks for numbers that are not finite.
      evaluator: of its weights.
      callbacks: called as callback(step, state, metrics) whenever metrics are logged.
      writer: of the log, opened once the run's first step is known.
    """

    config: ConfigDict
    workdir: pathlib.Path
    checkpoints: Checkpoints
    watch: monitor.Watch
    evaluator: Evaluates
    callbacks: Sequence[Callback] = ()
    writer: MetricsWriter | None = None

    def open_log(self, first_step: int) -> None:
        """Opens metrics.jsonl and the trackers of a run that goes on from `first_step`."""
        config = config_lib.flat_fields(self.config)
        self.writer = MetricsWriter(
            self.workdir, first_step=first_step, trackers=trackers_of(self.config), config=config
        )

    def save(self, step: int, state: TrainState, evaluated: dict[str, float]) -> None:
        self.writer.flush()
        self.checkpoints.save(step, state, evaluated)
        self.watch.last_saved = step


def trackers_of(config: ConfigDict) -> list[str]:
    """The trackers that a run writes to."""
    return [name for name in config.log.trackers if name != "tensorboard" or config.log.tensorboard]


def every(config: ConfigDict, name: str, training: build.Training) -> Callable[[int], bool]:
    """step -> whether config.NAME.every has passed; at the last step it always has, unless it is turned off."""
    k, total, text = config.train.steps_per_dispatch, training.total_steps, config[name].every
    if not text:
        return lambda step: False
    interval = config_lib.duration_steps(
        f"{name}.every", text, steps_per_epoch=training.steps_per_epoch, total_steps=total
    )
    return lambda step: step == total or step // interval > (step - k) // interval


class Always:
    """A hook that is due after every dispatch."""

    def due(self, now: Moment) -> bool:
        return True


class EndTrace(Always):
    """Ends the profile after its last step."""

    def __init__(self, profiler: Profiler, clock: monitor.Clock):
        self._profiler, self._clock = profiler, clock

    def __call__(self, now: Moment) -> None:
        with self._clock.paused():
            self._profiler.taken(now.step, now.metrics)


class CheckSaves(Always):
    """Notices a save that failed in the background."""

    def __init__(self, outputs: Sequence[Outputs]):
        self._outputs = outputs

    def __call__(self, now: Moment) -> None:
        for out in self._outputs:
            out.checkpoints.check()


class Stop(Always):
    """Ends the loop after a signal to any process."""

    def __init__(self, stop: StopRequest, mesh: Mesh):
        self._stop, self._mesh = stop, mesh

    def __call__(self, now: Moment) -> None:
        now.stopping = self._stop.agreed(self._mesh)


class Finite(Always):
    """Checks every step's loss and gradient norm, one dispatch late: the device never waits for the host."""

    def __init__(self, outputs: Sequence[Outputs], members: Alone | Together):
        self._outputs = outputs
        self._of_run = [functools.partial(members.metrics, i=i) for i in range(len(outputs))]

    def __call__(self, now: Moment) -> None:
        for out, of_run in zip(self._outputs, self._of_run, strict=True):
            out.watch.push(now.step, now.metrics, of_run)

    def latest(self) -> list[dict[str, float]]:
        """Waits for the metrics of the newest step of each run, and checks them.

        Raises:
          UserError: if one of these numbers is not finite.
        """
        return [out.watch.latest() for out in self._outputs]


class Scheduled:
    """A hook that is due whenever config.BLOCK.every is up."""

    block: str

    def __init__(
        self,
        outputs: Sequence[Outputs],
        members: Alone | Together,
        finite: Finite,
        clock: monitor.Clock,
        training: build.Training,
    ):
        self._outputs, self._members, self._finite, self._clock = outputs, members, finite, clock
        self._config, self._total = outputs[0].config, training.total_steps
        self._is_due = every(self._config, self.block, training)

    def due(self, now: Moment) -> bool:
        return self._is_due(now.step)


class Log(Scheduled):
    """Writes metrics and speed, warns of collapse, and calls back."""

    block = "log"

    def __init__(self, *scheduled: Any, shown: Sequence[str] | None, progress: Progress):
        """Args:
        *scheduled: see `Scheduled`.
        shown: names of metrics for the progress line; the first dozen if None.
        progress: the line on a terminal; the log has a line for each epoch then.
        """
        super().__init__(*scheduled)
        self._shown, self._warned, self._progress = shown, set(), progress
        self._epoch = -1  # the last one with a line of its own

    def __call__(self, now: Moment) -> None:
        of_runs = self._finite.latest()
        speed = self._clock.report(
            batch_size=self._config.train.batch_size * len(of_runs), steps_left=self._total - now.step
        )
        self._tell(now, self._line(of_runs), speed)
        for i, (out, values) in enumerate(zip(self._outputs, of_runs, strict=True)):
            self._warn(now.step, out.config.seed, values)
            record = {f"train/{name}": value for name, value in values.items()}
            out.writer.write_scalars(now.step, {"epoch": now.epoch, **record, **speed})
            if out.callbacks:
                state = self._members.state(now.state, i)
                for callback in out.callbacks:
                    callback(now.step, state, values)

    def _tell(self, now: Moment, line: dict[str, float], speed: dict[str, float]) -> None:
        """A line in the log; on a terminal the line that renews itself, and one in the log for each epoch."""
        everything = log.isEnabledFor(logging.DEBUG)
        self._progress.show(now.epoch, speed["perf/images_per_s"], next(iter(line.values())))
        if self._progress.on_terminal and not everything and int(now.epoch) == self._epoch:
            return
        self._epoch = int(now.epoch)
        columns = None if everything else monitor.COLUMNS
        log.info("%s", monitor.progress_line(now.step, self._total, now.epoch, line, speed, columns))

    def _line(self, of_runs: Sequence[dict[str, float]]) -> dict[str, float]:
        if len(of_runs) > 1:
            runs = zip(self._outputs, of_runs, strict=True)
            return {f"total of seed {out.config.seed}": values["total"] for out, values in runs}
        (values,) = of_runs
        shown = self._shown
        if shown is None:
            shown = [name for name in values if name not in ("total", "grad_norm", "learning_rate")][:MOST_SHOWN]
        return {name: values[name] for name in ("total", *shown, "grad_norm") if name in values}

    def _warn(self, step: int, seed: int, values: dict[str, float]) -> None:
        whose = f", seed {seed}" if len(self._outputs) > 1 else ""
        for name, warning in monitor.collapse_warnings(values).items():
            if (seed, name) not in self._warned:
                log.warning("step %d%s: %s", step, whose, warning)
                self._warned.add((seed, name))


class Evaluate(Scheduled):
    """Evaluates in training; a failing evaluation saves first."""

    block = "evaluate"

    def __init__(self, *scheduled: Any):
        super().__init__(*scheduled)
        self._start, self._spent = time.perf_counter(), 0.0
        self.features: Sequence[np.ndarray] | None = None  # Of the last step's state, where there is one run.

    def __call__(self, now: Moment) -> None:
        now.evaluated = []
        with self._clock.paused():
            self._finite.latest()
            for i, out in enumerate(self._outputs):
                now.evaluated.append(self._evaluate(now, i, out))

    def _evaluate(self, now: Moment, i: int, out: Outputs) -> dict[str, float]:
        state, start = self._members.state(now.state, i), time.perf_counter()
        try:
            features = out.evaluator.features(state)
            evaluated = out.evaluator.in_training(features, state)
        except Exception:  # The training up to here is kept.
            for j, other in enumerate(self._outputs):
                other.save(now.step, self._members.state(now.state, j), {})
            raise
        if now.step == self._total and len(self._outputs) == 1:  # At other times nobody needs their gigabytes.
            self.features = features
        seconds = time.perf_counter() - start
        self._spent += seconds
        cost = {
            "perf/evaluation_s": seconds,
            "perf/evaluation_share": self._spent / (time.perf_counter() - self._start),
        }
        record = {f"eval/{name}": value for name, value in evaluated.items()}
        out.writer.write_scalars(now.step, {"epoch": now.epoch, **record, **cost})
        line = monitor.evaluation_line(now.step, now.epoch, evaluated, seconds)
        log.info("%s%s", f"seed {out.config.seed}: " if len(self._outputs) > 1 else "", line)
        return evaluated


class Save(Scheduled):
    """Saves a checkpoint, also where the loop ends early."""

    block = "checkpoint"

    def due(self, now: Moment) -> bool:
        return now.stopping or self._is_due(now.step)

    def __call__(self, now: Moment) -> None:
        with self._clock.paused():
            self._finite.latest()  # Nothing that is not finite is ever saved.
            for i, out in enumerate(self._outputs):
                evaluated = now.evaluated[i] if now.evaluated else {}
                out.save(now.step, self._members.state(now.state, i), evaluated)


def shown_terms(config: ConfigDict, own: Any) -> Sequence[str] | None:
    """The metrics that the objective wants on the progress line; None for an objective that a program passed."""
    return None if own is not None else parts.objectives[config.objective.name].about.get("shown")
