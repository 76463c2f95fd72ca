"""Iterators with threads or processes are closed before the interpreter ends; workers end with their parent."""

import atexit
import contextlib
import multiprocessing
import multiprocessing.util  # before atexit.register: it ends all workers at exit, and the latest is called first
import os
import threading
import weakref
from typing import Any

_open: list[weakref.ref] = []


def close_at_exit(iterator: Any, *, used_by_others: bool = False) -> None:
    """Closes the iterator when the interpreter ends, if it still exists.

    The latest is closed first, as it takes from earlier ones and closes them itself. What is used by others comes
    after all of them: a thread of theirs may wait in it, and could wait for ever once it is closed.
    """
    reference = weakref.ref(iterator, _open.remove)
    _open.insert(0 if used_by_others else len(_open), reference)


@atexit.register
def _close_all() -> None:
    for reference in reversed(_open.copy()):
        iterator = reference()
        if iterator is not None:
            with contextlib.suppress(
                ValueError
            ):  # a thread is waiting in it; what is below it is closed all the same
                iterator.close()


def end_with_parent() -> None:
    """In a worker process: it ends when the process that started it does, however that one ends."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
