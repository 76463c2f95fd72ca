"""Faults of a disk that nobody else has told of, in one sentence."""

import errno
import os
import pathlib

from hamjepa_jax import disk

# Faults that reading a file meets as well as writing one.
READING_TOO = {
    errno.EACCES: "see to its permissions",
    errno.EPERM: "see to its permissions",
    errno.EIO: "see to the disk",
}


def disk_fault(error: BaseException, path: str | os.PathLike | None = None) -> str | None:
    """The sentence; None if the error is no OSError of a full, read-only or failing disk.

    Args:
      error: as it was raised.
      path: to name where the error names none; the working directory if None.
    """
    code = disk.fault(error)
    if not isinstance(error, OSError) or code is None:
        return None
    path = pathlib.Path(error.filename or path or ".")
    if code in READING_TOO:
        return (
            f"{path}: cannot be read or written ({os.strerror(code)}); the files there are kept; "
            f"{READING_TOO[code]} and give the same command again."
        )
    return disk.sentence(path.absolute(), error, "the files there are kept")
