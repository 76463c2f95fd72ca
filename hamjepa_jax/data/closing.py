"""Iterators that hold threads or processes are closed before the interpreter takes itself apart."""

import atexit
import contextlib
import weakref
from typing import Any

_open: list[weakref.ref] = []


def close_at_exit(iterator: Any) -> None:
    """Closes the iterator when the interpreter ends, if it still exists; the latest first, as it uses others."""
    _open.append(weakref.ref(iterator, _open.remove))


@atexit.register
def _close_all() -> None:
    for reference in reversed(_open.copy()):
        iterator = reference()
        if iterator is not None:
            with contextlib.suppress(
                ValueError
            ):  # a thread is waiting in it; what is below it is closed all the same
                iterator.close()
