"""Folders that a user names."""

import os
import pathlib

from hamjepa_jax.errors import UserError


def make_folder(path: str | os.PathLike, name: str) -> pathlib.Path:
    """The folder, made with those above it if it was missing.

    Args:
      path: of the folder.
      name: what the user gave it by, for the message.

    Raises:
      UserError: if it cannot be made or nothing can be written into it.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{name} {path}: cannot be made ({error.strerror}); choose another folder.") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{name} {path}: you may not write into it; choose another folder.")
    return path
