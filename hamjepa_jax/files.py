"""Folders and files: made where a user wants them, written in one go, and locked."""

import contextlib
import errno
import json
import logging
import os
import pathlib
import platform
import re
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import filelock

from hamjepa_jax.errors import UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # What a file system without locks says.
log = logging.getLogger(__name__)


def make_folder(path: str | os.PathLike, name: str) -> pathlib.Path:
    """The folder, made with its parents if it was missing; "~" is the user's home.

    Args:
      path: of the folder.
      name: the flag or field that gave it, for the message.

    Raises:
      UserError: if the path is empty, the folder cannot be made, or nothing can be written into it.
    """
    path = user_path(path, name)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{name} {path}: cannot be made ({error.strerror}); choose another folder.") from None
    try:
        with tempfile.TemporaryFile(dir=path):  # Permissions do not tell of /proc, nor of a disk that is read-only.
            return path
    except OSError as error:
        raise UserError(
            f"{name} {path}: cannot be written into ({error.strerror}); choose another folder."
        ) from None


def file_to_write(path: str | os.PathLike, name: str) -> pathlib.Path:
    """The path of a file that will be written after long work; its folder is made now.

    Raises:
      UserError: as `make_folder` does, or if a folder or device has this path.
    """
    path = user_path(path, name)
    if path.is_dir():
        raise UserError(f"{name} {path}: is a folder; give a file in it, as in {name}={path / 'numbers.json'}.")
    # A file takes the place of what is there: /dev/null would be gone.
    if (path.exists() and not path.is_file()) or path.absolute().parent == pathlib.Path("/dev"):
        raise UserError(f"{name} {path}: is a device or the like; give a file, as in {name}=numbers.json.")
    make_folder(path.parent, name)
    return path


def user_path(path: str | os.PathLike, name: str) -> pathlib.Path:
    """A path that a user gave, with "~" expanded.

    Raises:
      UserError: if it is empty, as an unset shell variable makes it, or can be no path on this machine.
    """
    text = os.fspath(path)
    if not text:
        raise UserError(f"{name}: the path is empty; give one, as in {name}=runs/first.")
    if "\0" in text:
        raise UserError(f"{name} {text!r}: no path has a NUL in it; give another.")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise UserError(
            f"{name} {text}: is a URL and no path on this machine; copy or mount it, and give its path."
        )
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise UserError(f"{name} {text}: there is no such user, so no home folder; write ./~… for a plain name.")
    try:
        os.stat(expanded)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise UserError(f"{name} {text}: can be no path ({error.strerror}); give another.") from None
    return pathlib.Path(expanded)


def put_aside(path: pathlib.Path, problem: str) -> None:
    """Renames a file or folder that is damaged or in the way, so that the work can go on; the log says so.

    Args:
      path: of it.
      problem: what is wrong with it, for the log: "is no file".
    """
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged{number}")).exists():
        number += 1
    path.rename(aside)
    log.warning("%s: %s; it was renamed to %s, and the run goes on", path, problem, aside.name)


def room_for_folder(path: pathlib.Path) -> pathlib.Path:
    """Makes a folder inside a workdir; a file of that name is put aside."""
    if path.exists() and not path.is_dir():
        put_aside(path, "is no folder")
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_json(path: pathlib.Path, content: Any, *, indent: int | None = 2) -> None:
    """Writes a JSON file in one go."""
    write_text(path, json.dumps(content, indent=indent))


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file in one go, as UTF-8; what is no text, as in names of files, stands as escapes."""
    with written_at_once(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def readable(name: str) -> str:
    """A name, as of a file, as one line of text: line breaks are spaces, and what is no text stands as escapes."""
    return " ".join(name.encode(errors="backslashreplace").decode().split())


@contextlib.contextmanager
def written_at_once(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary file to write, which then becomes `path`.

    No reader ever sees half of it, and a failed write leaves the former file. A folder of that name is put aside.
    """
    if path.is_dir():
        put_aside(path, "is no file")
    temporary = path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[bool]:
    """Holds a lock file; waits first while another process holds it. It is released when its holder ends.

    Gives False where the file system has no locks: other processes may then do the same work.
    """
    try:
        try:
            lock = hold(path, blocking=False)
        except filelock.Timeout:
            log.info("waiting for another process at the same work (it holds %s)", path)
            lock = hold(path, blocking=True)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def hold(path: pathlib.Path, *, blocking: bool) -> filelock.BaseFileLock:
    """The lock on a file, held until it is released or the process ends.

    Raises:
      filelock.Timeout: if another process holds it and this one is not to wait.
      OSError: with a code in NO_LOCKS where the file system has no locks.
    """
    lock = filelock.FileLock(path)
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            lock.acquire(blocking=blocking)
    except NotImplementedError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if isinstance(lock, filelock.SoftFileLock):  # A mere file, which would outlive a process that is killed.
        lock.release()
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return lock
