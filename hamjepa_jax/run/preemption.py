"""Ending on request: SIGTERM and SIGINT end a run at the next safe point; a second one ends the process at once."""

import contextlib
import logging
import signal
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax.training.mesh import batch_sharded

log = logging.getLogger(__name__)
_any = jax.jit(jnp.any)


class StopRequest:
    """Context in which a signal ends the run at the next safe point.

    The handler only notes the signal: an exception during XLA's compilation would crash the interpreter.

    Attributes:
      requested: name of the signal that arrived, or None.
    """

    def __init__(self):
        self.requested: str | None = None
        self._former: dict = {}
        self._waits = True
        self._asked: jax.Array | None = None

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._former[number] = signal.signal(number, self._receive)
            except ValueError:  # Not the main thread: signals then stay as the caller has them.
                break
        return self

    def check(self) -> None:
        """A safe point where nothing is to be saved.

        Raises:
          SystemExit: with status 0, if a signal has arrived.
        """
        if self.requested is not None:
            log.info("%s: stopped with nothing to save; the same command goes on from there", self.requested)
            raise SystemExit(0)

    def agreed(self, mesh: Mesh) -> bool:
        """Whether to stop now: the same answer on every process. To be asked once after each call of the step.

        With several processes the answer is whether any had a signal when this was last asked: the devices have
        combined their flags since then, so nobody waits.
        """
        if jax.process_count() == 1:
            return self.requested is not None
        # JAX's own preemption service would do, but Orbax moves its step counter from another thread.
        mine = np.array([self.requested is not None])
        flags = jax.make_array_from_callback((mesh.size,), batch_sharded(mesh), lambda _: mine)
        before, self._asked = self._asked, _any(flags)
        if before is None or not before:
            return False
        self.requested = self.requested or "a signal to another process"
        return True

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """For hours of reading or decoding, in which nothing is compiled: a signal ends the run at once."""
        self.check()
        self._waits = False
        try:
            yield
        finally:
            self._waits = True

    def _receive(self, number: int, frame) -> None:
        del frame
        signal.signal(number, self._former[number])  # A second signal is the caller's, which ends at once.
        self.requested = signal.Signals(number).name
        if not self._waits:
            raise SystemExit(0)

    def __exit__(self, *exception) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
