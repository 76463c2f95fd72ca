"""Ending on request: SIGTERM and SIGINT end a run with nothing lost; a second one ends the process at once."""

import signal


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

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._former[number] = signal.signal(number, self._receive)
            except ValueError:  # Not the main thread: signals then stay as the caller has them.
                break
        return self

    def _receive(self, number, frame) -> None:
        del frame
        signal.signal(number, self._former[number])
        if not self.deferring:
            raise SystemExit(0)
        self.requested = signal.Signals(number).name

    def __exit__(self, *exception) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
