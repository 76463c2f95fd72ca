"""Ending on request: SIGTERM and SIGINT end a run with nothing lost; a second one ends the process at once."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax.training.mesh import batch_sharded

_any = jax.jit(jnp.any)


class StopRequest:
    """Context in which a signal ends the run: at once where nothing is at stake, else at the next safe point.

    Attributes:
      deferring: while true, a signal only sets `requested`; otherwise it raises SystemExit(0).
      requested: name of the signal that arrived, or None.
    """

    def __init__(self):
        self.deferring = False
        self.requested: str | None = None
        self._former: dict = {}
        self._asked: jax.Array | None = None

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._former[number] = signal.signal(number, self._receive)
            except ValueError:  # Not the main thread: signals then stay as the caller has them.
                break
        return self

    def agreed(self, mesh: Mesh) -> bool:
        """Whether to stop now: the same answer on every process, to be asked once after each call of the step.

        With several processes it is whether a signal had come to any of them by the time of the call before: the
        devices have added that up behind that step, so that nobody waits for it.
        """
        if jax.process_count() == 1:
            return self.requested is not None
        # JAX's own preemption service would do, did not Orbax move its step counter from another thread.
        mine = np.array([self.requested is not None])
        flags = jax.make_array_from_callback((mesh.size,), batch_sharded(mesh), lambda _: mine)
        before, self._asked = self._asked, _any(flags)
        if before is None or not before:
            return False
        self.requested = self.requested or "a signal to another process"
        return True

    def _receive(self, number, frame) -> None:
        del frame
        signal.signal(number, self._former[number])
        if not self.deferring:
            raise SystemExit(0)
        self.requested = signal.Signals(number).name

    def __exit__(self, *exception) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
