"""Messages on the terminal: this package's as they are, other libraries' from warnings on."""

import logging
import os
import signal
import sys
import traceback
from typing import Any

from absl import logging as absl_logging

_ORBAX = f"{os.sep}orbax{os.sep}"  # In the paths of its modules.


def log_to_terminal() -> None:
    """Writes this package's messages to standard output, and keeps other libraries quiet."""
    quiet_libraries()
    show_messages()


def quiet_libraries() -> None:
    """Lets other libraries log warnings only, and Orbax only errors that it does not raise too."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(is_not_orbax)
    sys.excepthook = _without_late_futures


def show_messages() -> None:
    """Writes this package's messages to standard output."""
    logger = logging.getLogger("hamjepa_jax")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def is_not_orbax(record: logging.LogRecord) -> bool:
    """Whether to show a record of another library.

    Orbax raises the errors that it logs with a stack, and they are told in one sentence. Its warnings are about how
    it was opened.
    """
    if record.exc_info:
        return _ORBAX not in "".join(traceback.format_exception(*record.exc_info))
    return _ORBAX not in record.pathname or record.levelno >= logging.ERROR


def _without_late_futures(kind: type[BaseException], error: BaseException, stack: Any) -> None:
    """Shows an error that nobody has caught.

    Tensorstore reports here, once for each array, that the event loop of a save that failed has no use for its
    answers any more. The failure itself is told in one sentence.
    """
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        sys.__excepthook__(kind, error, stack)


def end_at_once_on_ctrl_c() -> None:
    """From here on Ctrl-C ends the program in one sentence at any moment, also during imports.

    A run that can be saved takes the first Ctrl-C itself and leaves the second one to this.
    """

    def end(number: int, frame) -> None:
        os.write(2, b"error: stopped by Ctrl-C; the work since the last save is lost.\n")
        os._exit(130)

    signal.signal(signal.SIGINT, end)
