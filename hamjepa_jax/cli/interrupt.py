"""Ctrl-C, also while a command still imports; so this module imports nothing that takes time."""

import os
import signal
import sys


def end_at_once_on_ctrl_c() -> None:
    """From here on Ctrl-C ends the program in one sentence at any moment, also during imports.

    A run that can be saved takes the first Ctrl-C itself and leaves the second one to this.
    """

    def end(number: int, frame) -> None:
        os.write(sys.stderr.fileno(), b"error: stopped by Ctrl-C; the work since the last save is lost.\n")
        os._exit(130)

    signal.signal(signal.SIGINT, end)
