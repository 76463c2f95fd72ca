"""Configs from files: FILE.py or FILE.py:name=value,…, with overrides."""

import importlib.util
import pathlib
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import ml_collections

from hamjepa_jax.config.default import complete
from hamjepa_jax.config.grammar import assign
from hamjepa_jax.errors import UserError

ConfigDict = ml_collections.ConfigDict


def read_config(file: str | pathlib.Path) -> ConfigDict:
    """The config of "FILE.py" or "FILE.py:name=value,…", its plugins loaded.

    Raises:
      UserError: if there is no such file, it cannot be loaded, or it does not understand the argument.
    """
    name, _, argument = str(file).partition(":")
    module = load_python(pathlib.Path(name).expanduser(), "--config")
    if not hasattr(module, "get_config"):
        raise UserError(f"--config {name}: defines no get_config(arg).")
    try:
        config = module.get_config(argument or None)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"--config {name}: {' '.join(str(error).split())}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config {name}: get_config(arg) must return a ConfigDict, not {type(config).__name__}.")
    if "plugins" in config:
        complete(config)
    return config.lock()


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
        raise UserError(f"{what} {path}: no such file; this package's configs are in configs/.")
    # Config files import each other as `configs.NAME`: from the folder above theirs.
    above = str(path.resolve().parent.parent)
    if above not in sys.path:
        sys.path.insert(0, above)
    spec = importlib.util.spec_from_file_location(f"_{path.stem}", path)
    if spec is None:
        raise UserError(f"{what} {path}: is no Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, OSError, ValueError) as error:
        raise UserError(f"{what} {path}: cannot be loaded ({' '.join(str(error).split())}).") from None
    return module
