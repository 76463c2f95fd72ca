"""The processes of one run: the first one writes, and they agree before any of them goes on."""

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hamjepa_jax.errors import UserError

MESSAGE_BYTES = 2048
GRACE_S = 3
STATUS = re.compile(r"[A-Z]+(_[A-Z]+)*: ")  # How XLA's messages begin; reading an array raises them as ValueError.
# Of errors that are this process's own: too little memory, a mistake in the program.
OWN = ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "UNIMPLEMENTED")
LOST = (
    "another process of the run has stopped, or cannot be reached any more; start the same command on all of them "
    "again: it goes on from the last checkpoint"
)


def is_first() -> bool:
    """Whether this process is the one that writes logs, results and plots."""
    return jax.process_index() == 0


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """A UserError in one process's block is raised in all of them: none goes on to wait for one that has left."""
    mine = None
    try:
        yield
    except UserError as error:
        mine = error
    for process, message in enumerate(_gather("" if mine is None else str(mine))):
        if message and process == jax.process_index():
            raise mine
        if message:
            raise UserError(f"process {process}: {message}")


def everywhere(flag: bool) -> bool:
    """Whether `flag` holds on every process."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.array(flag)).all())


def wait_for_all(what: str) -> None:
    """Returns once every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def on_host(tree: Any) -> Any:
    """The tree's arrays in host memory, whole on every process, also those that processes hold parts of.

    All processes have to call it.
    """

    def whole(x: Any) -> Any:
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            return multihost_utils.process_allgather(x, tiled=True)
        return jax.device_get(x)

    return jax.tree.map(whole, tree)


def is_lost(error: BaseException | None) -> bool:
    """Whether the exception means that another process of the run is lost."""
    if not jax.distributed.is_initialized() or str(error).startswith(OWN):
        return False
    read = isinstance(error, ValueError) and STATUS.match(str(error))
    return isinstance(error, jax.errors.JaxRuntimeError) or bool(read)


def leave(status: int) -> None:
    """Ends one of several processes at once; an orderly end would wait for the others, which may wait for this one.

    The first process gives the others a moment for their messages: JAX aborts them when it is gone.
    """
    if not jax.distributed.is_initialized():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        time.sleep(GRACE_S)
    os._exit(status)


def _gather(text: str) -> list[str]:
    """The text of every process, cut off after MESSAGE_BYTES."""
    if jax.process_count() == 1:
        return [text]
    padded = text.encode()[:MESSAGE_BYTES].ljust(MESSAGE_BYTES, b"\0")
    rows = multihost_utils.process_allgather(np.frombuffer(padded, np.uint8))
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in np.asarray(rows)]
