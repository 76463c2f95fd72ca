"""Configs from files: FILE.py or FILE.py:name=value,…, with overrides."""

import importlib.util
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import ml_collections

from hamjepa_jax.config.default import complete
from hamjepa_jax.config.grammar import assign
from hamjepa_jax.config.shipped import is_name, names, shipped_file
from hamjepa_jax.errors import UserError

ConfigDict = ml_collections.ConfigDict


def read_config(file: str | pathlib.Path) -> ConfigDict:
    """The config of a file or of a shipped config's name, with or without ":name=value,…", its plugins loaded.

    Raises:
      UserError: if there is no such file or name, it cannot be loaded, or it does not understand the argument.
    """
    name, argument = _split(str(file))
    path = pathlib.Path(os.path.expanduser(name))
    if is_name(name) and not path.exists():
        path = shipped_file(name)
    module = load_python(path, "--config")
    if not hasattr(module, "get_config"):
        raise UserError(f"--config {name}: defines no get_config(arg).")
    config = called(module.get_config, module.__file__, "--config", argument)
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config {name}: get_config(arg) must return a ConfigDict, not {type(config).__name__}.")
    return complete(config).lock()


def shipped(name: str, arg: str | None = None, **own: str) -> ml_collections.ConfigDict:
    """A shipped config, to build another one on.

    >>> shipped("cifar100", "epochs=80").train.epochs
    80
    >>> shipped("trajectories", "epochs=5", system="spring").data.source.partition("?")[0]
    'trajectories:spring'

    Args:
      name: of the config.
      arg: "name=value,…" as after the colon of --config=NAME:name=value.
      **own: arguments that the config built on it decides, so that `arg` may not.

    Returns:
      The config, locked: a new field needs `unlocked()`.

    Raises:
      UserError: for an unknown name or argument, or one of `own`.
    """
    given = [part for part in (arg or "").split(",") if part]
    for part in given:
        decided = part.partition("=")[0]
        if decided in own:
            raise UserError(
                f"config argument {part!r}: this config has {decided}={own[decided]}; leave it out, or give it to "
                f"--config={name}."
            )
    given += [f"{argument}={value}" for argument, value in own.items()]
    return read_config(f"{shipped_file(name)}:{','.join(given)}" if given else shipped_file(name))


def _split(text: str) -> tuple[str, str | None]:
    """The file or name and what follows its colon, of which a path before ".py" may have more."""
    head = text.partition(":")[0]
    file = None if head in names() else re.match(r".*?\.py(?=:|$)", text, re.DOTALL)
    name = head if file is None else file[0]
    return name, text[len(name) + 1 :] or None


def configure(file: str | pathlib.Path, overrides: Iterable[tuple[str, str]] = ()) -> ConfigDict:
    """The config of a file, changed field by field.

    Args:
      file: see `read_config`.
      overrides: (field, text of its value); of one field the last counts. Plugins come first, because they
        bring fields.

    Raises:
      UserError: for a file, field or value that cannot be used.
    """
    config = read_config(file)
    try:
        change(config, overrides)
    except UserError as error:
        raise UserError(f"--config.{error}") from None
    return config


def change(config: ConfigDict, overrides: Iterable[tuple[str, str]]) -> None:
    """Applies overrides to the config, as `configure` does."""
    for field, text in plugins_first(dict(overrides)):
        assign(config, field, text)


def plugins_first(changes: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(field, value) of the changes, in an order in which the fields that plugins bring are there."""
    return sorted(changes.items(), key=lambda change: change[0] != "plugins")


def load_python(path: pathlib.Path, what: str) -> ModuleType:
    """The module in a Python file.

    Args:
      path: of the file.
      what: the flag that named it, for messages.

    Raises:
      UserError: if there is no such file or it fails.
    """
    if not path.is_file():
        shipped = f"; --config={path.stem} is the one that comes with the package" if path.stem in names() else ""
        raise UserError(f"{what} {path}: no such file{shipped}.")
    # Config files of one's own may import each other as `FOLDER.NAME`: from the folder above theirs.
    above = str(path.resolve().parent.parent)
    if above not in sys.path:
        sys.path.insert(0, above)
    spec = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    if spec is None:
        raise UserError(f"{what} {path}: is no Python file.")
    module = importlib.util.module_from_spec(spec)
    called(spec.loader.exec_module, path, what, module)
    return module


def called(function: Callable[..., Any], path: str | pathlib.Path, what: str, *arguments: Any) -> Any:
    """What a function of a user's Python file returns.

    Args:
      function: of the file.
      path: of the file.
      what: the flag that named it, for messages.
      *arguments: of the function.

    Raises:
      UserError: as it raises one itself; for every other error, with its line in the file.
    """
    try:
        return function(*arguments)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f" in line {own[-1].lineno}" if own else ""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{what} {path}: fails{where} ({reason}).") from error
