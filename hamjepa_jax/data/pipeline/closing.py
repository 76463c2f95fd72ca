"""Iterators with threads or processes are closed before the interpreter ends."""

import atexit
import contextlib
import weakref
from typing import Any

_open: list[weakref.ref] = []


def close_at_exit(iterator: Any, *, used_by_others: bool = False) -> None:
    """Closes the iterator when the interpreter ends, if it still exists.

    The latest is closed first, as it takes from earlier ones and closes them itself.

    Args:
      iterator: has a method `close`.
      used_by_others: closes it after all that are not. A thread of another iterator may be waiting in it, and could
        wait for ever after it is closed.
    """
    reference = weakref.ref(iterator, _open.remove)
    _open.insert(0 if used_by_others else len(_open), reference)


@atexit.register
def _close_all() -> None:
    for reference in reversed(_open.copy()):
        iterator = reference()
        if iterator is not None:
            # If a thread is waiting in a generator, it cannot be closed; the iterators that it uses still are.
            with contextlib.suppress(ValueError):
                iterator.close()
