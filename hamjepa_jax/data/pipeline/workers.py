"""The start of every worker process of the input pipeline: it loads the plugins, and ends with its parent."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker

from hamjepa_jax.parts import load_plugins, sources

HELD = (signal.SIGINT, signal.SIGTERM)  # while a worker starts


def source_plugins() -> tuple[str, ...]:
    """The plugins with sources of images, whose splits a worker can only be sent after it has loaded them."""
    return tuple(sorted({part.plugin for part in sources.parts() if part.plugin is not None}))


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Around the start of worker processes: Ctrl-C and SIGTERM wait in them until `start_worker`.

    Without it they would end a worker in the middle of its imports, with a traceback of its own. They wait in this
    thread too, as long as the block lasts.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # Its own start would unblock them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)  # Processes and threads inherit it.
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(plugins: tuple[str, ...], *, ignored: tuple[signal.Signals, ...] = (signal.SIGINT,)) -> None:
    """In a new worker process, before it is sent any work.

    Args:
      plugins: of `source_plugins`.
      ignored: signals that are for the process that started this one. Ctrl-C comes to all processes of a terminal.
    """
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    _end_with_parent()
    load_plugins(plugins)


def _end_with_parent() -> None:
    """Ends this process when the process that started it ends, even if that was killed."""
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
