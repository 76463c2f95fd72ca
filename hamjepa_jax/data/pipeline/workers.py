"""The start of every worker process of the input pipeline: it loads the plugins, and ends with its parent."""

import multiprocessing
import os
import signal
import threading

from hamjepa_jax.parts import load_plugins, sources


def source_plugins() -> tuple[str, ...]:
    """The plugins with sources of images, whose splits a worker can only be sent after it has loaded them."""
    return tuple(sorted({part.plugin for part in sources.parts() if part.plugin is not None}))


def start_worker(plugins: tuple[str, ...], *, ignored: tuple[signal.Signals, ...] = (signal.SIGINT,)) -> None:
    """In a new worker process, before it is sent any work.

    Args:
      plugins: of `source_plugins`.
      ignored: signals that are for the process that started this one. Ctrl-C comes to all processes of a terminal.
    """
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent()
    load_plugins(plugins)


def _end_with_parent() -> None:
    """Ends this process when the process that started it ends, even if that was killed."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
