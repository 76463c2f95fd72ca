"""Messages on the terminal: this package's as they are, other libraries' from warnings on."""

import contextlib
import io
import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Iterator
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
    logging.getLogger("absl").addFilter(is_not_orbax)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # Orbax alone uses it, and raises what it logs.
    sys.unraisablehook = _show_unraisable


def show_messages() -> None:
    """Writes this package's messages to standard output."""
    logger = logging.getLogger("hamjepa_jax")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def show_details(all_of_them: bool) -> None:
    """Whether to write every metric and the table of parameters too."""
    logging.getLogger("hamjepa_jax").setLevel(logging.DEBUG if all_of_them else logging.INFO)


@contextlib.contextmanager
def without_orbax_warnings() -> Iterator[None]:
    """Keeps Orbax quiet inside programs that have their own logging, as `is_not_orbax` says."""
    logger = logging.getLogger("absl")
    if is_not_orbax in logger.filters:
        yield
        return
    logger.addFilter(is_not_orbax)
    try:
        yield
    finally:
        logger.removeFilter(is_not_orbax)


def is_not_orbax(record: logging.LogRecord) -> bool:
    """Whether to show a record of another library.

    Orbax raises the errors that it logs with a stack, and they are told in one sentence. Its warnings are about how
    it was opened.
    """
    if record.exc_info:
        return _ORBAX not in "".join(traceback.format_exception(*record.exc_info))
    return _ORBAX not in record.pathname or record.levelno >= logging.ERROR


def show_any_text() -> None:
    """From here on no character stops a message: those that the terminal's encoding lacks are shown as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def keep_library_output_in(file: pathlib.Path) -> None:
    """From here on a file gets what C++ libraries write to the terminal by themselves, if it can be written.

    This process's own messages stay where they were, and one of them names the file.

    Args:
      file: appended to; its folder is made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        target = open(file, "ab")
    except OSError:  # The run itself says that its workdir cannot be written.
        return
    moved = {}
    for name, number in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        before.flush()
        own = open(os.dup(number), "w", buffering=1, encoding=before.encoding, errors=before.errors)
        moved[before] = own
        setattr(sys, name, own)
        os.dup2(target.fileno(), number)
    target.close()
    for handler in (*logging.getLogger("hamjepa_jax").handlers, absl_logging.get_absl_handler().python_handler):
        if handler.stream in moved:
            handler.setStream(moved[handler.stream])
    print(f"messages of C++ libraries, also on a process that was lost: {file}")


def is_late_answer(unraisable: Any) -> bool:
    """Whether a fault that Python cannot raise is of a save that has failed already.

    Tensorstore tells, once for each array, that the failed save no longer waits for its answers. The failure itself
    is told in one sentence.
    """
    return isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"


def _show_unraisable(unraisable: Any) -> None:
    if not is_late_answer(unraisable):
        sys.__unraisablehook__(unraisable)
