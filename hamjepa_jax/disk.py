"""Faults of a disk, told in one sentence: it is full, read-only, or fails."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from hamjepa_jax.errors import UserError

# The system's error codes, each with its remedy.
FAULTS = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EFBIG: "raise the limit on the size of files",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EIO: "see to the disk",
}


def fault(error: BaseException) -> int | None:
    """The code in FAULTS that an error stands for, if only by quoting the system's words; None for other errors."""
    if isinstance(error, OSError) and error.errno in FAULTS:
        return error.errno
    return next((code for code in FAULTS if os.strerror(code) in str(error)), None)


@contextlib.contextmanager
def reported(path: pathlib.Path, consequence: str = "the files there are kept") -> Iterator[None]:
    """Turns a fault of the disk in its block into one sentence about `path`; other errors pass.

    Raises:
      UserError: with the path, the system's words, the room left, the consequence and the remedy.
    """
    try:
        yield
    except Exception as error:
        if fault(error) is None:
            raise
        raise UserError(sentence(path, error, consequence)) from error


def sentence(path: pathlib.Path, error: BaseException, consequence: str) -> str:
    """The message about a fault of the disk in writing `path`."""
    code = fault(error)
    return (
        f"{path}: cannot be written ({os.strerror(code)}; {megabytes(room(path))} are free); {consequence}; "
        f"{FAULTS[code]} and give the same command again."
    )


def room(path: pathlib.Path) -> int:
    """Free bytes on the disk that `path` is or would be on."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def require(directory: pathlib.Path, size: int) -> None:
    """Raises the system's "No space left on device" where fewer than `size` bytes are free."""
    if room(directory) < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))


def megabytes(size: int) -> str:
    """Bytes in words."""
    return f"{size / 1e6:,.1f} MB"


def check_writable(directory: pathlib.Path) -> None:
    """Writes a little to an existing directory and removes it.

    Raises:
      UserError: if that does not work.
    """
    with reported(directory, "nothing was begun"), tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"0" * 4096)
        file.flush()
