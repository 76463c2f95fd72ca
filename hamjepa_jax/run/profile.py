"""A trace of some training steps, of devices and host, for xprof: --profile=start:steps."""

import contextlib
import logging
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from hamjepa_jax.errors import UserError

FOLDER = "profile"
log = logging.getLogger(__name__)


class Window(NamedTuple):
    """Steps `start` to `start + steps − 1`, counted from 1 as in the log."""

    start: int
    steps: int

    @property
    def last(self) -> int:
        return self.start + self.steps - 1


def parse_window(text: str) -> Window:
    """ "start:steps" as a window.

    Raises:
      UserError: for another form.
    """
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", text):
        raise UserError(f"--profile {text!r}: must be START:STEPS, the first step to trace (from 1) and how many.")
    return Window(*map(int, text.split(":")))


class Profiler:
    """Traces the dispatches that hold the steps of a window; does nothing without one.

    The first process writes the trace, under WORKDIR/profile; all processes run the same program.
    """

    def __init__(
        self, workdir: pathlib.Path, window: Window | None, *, first_step: int, total: int, steps_per_dispatch: int
    ):
        """Nothing is traced yet.

        Args:
          workdir: of the run.
          window: steps to trace, or None.
          first_step: steps that the run has taken already.
          total: steps of the whole run.
          steps_per_dispatch: steps in one device program; a trace has whole programs.

        Raises:
          UserError: if the window is not among the steps that lie ahead.
        """
        if window is not None and not first_step < window.start <= window.last <= total:
            left = "none is left" if first_step == total else f"{first_step + 1} to {total} are left"
            raise UserError(
                f"--profile {window.start}:{window.steps}: steps {window.start} to {window.last} must all lie "
                f"ahead, and {left}; choose others."
            )
        self._folder, self._window, self._k = workdir / FOLDER, window, steps_per_dispatch
        self._writes = window is not None and jax.process_index() == 0
        self._tracing = False

    @contextlib.contextmanager
    def step(self, steps_taken: int) -> Iterator[None]:
        """For the dispatch after `steps_taken` steps: marks it in a trace, and begins this one when it is due."""
        if self._writes and steps_taken < self._window.start <= steps_taken + self._k:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # Every Python call would drown the steps and slow them down.
            self._folder.mkdir(exist_ok=True)
            jax.profiler.start_trace(self._folder, profiler_options=options)
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=steps_taken + 1):
            yield

    def taken(self, steps_taken: int, outputs: Any) -> None:
        """Ends the trace if the dispatch that made `outputs` was its last; the devices' work on them is in it."""
        if self._tracing and steps_taken >= self._window.last:
            jax.block_until_ready(outputs)
            self.close()
            log.info(
                "profile of steps %d to %d: %s; to look at it: pip install xprof; xprof --logdir %s",
                *(self._window.start, self._window.last, self._folder, self._folder),
            )

    def close(self) -> None:
        """Writes what was traced so far, however the run ends."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
