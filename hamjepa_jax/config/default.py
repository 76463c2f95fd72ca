"""The default config, made of the settings' statements, and the configs of workdirs written before."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from hamjepa_jax import parts
from hamjepa_jax.config import fields
from hamjepa_jax.errors import UserError
from hamjepa_jax.parts import Field, Part, Registry, Settings, Values

# Their import registers this package's parts.
BUILT_IN = ("hamjepa_jax.objectives", "hamjepa_jax.nn", "hamjepa_jax.data", "hamjepa_jax.metrics")
# Fields of earlier versions that could have one value only.
RETIRED = ("mesh.data", "predictor.learnable_step_size")


def default_config(plugins: Sequence[str] = ()) -> ConfigDict:
    """Every field of a run with its default. The config is locked: a mistyped field is refused.

    Args:
      plugins: modules or Python files that register parts of your own, whose settings are then in the config too.

    Raises:
      UserError: for a plugin that cannot be imported.
    """
    config = ConfigDict()
    parts.load_plugins(plugins)
    for path, field in _statements(plugins).items():
        _add(config, path, field)
    config.plugins = tuple(map(parts.plugin_name, plugins))
    return config.lock()


def complete(config: ConfigDict) -> ConfigDict:
    """The same config with the settings of its plugins' parts; those that were missing have their defaults.

    Raises:
      UserError: for a plugin that cannot be imported.
    """
    plugins = config.get("plugins", ())
    parts.load_plugins(plugins)
    with config.unlocked():
        config.plugins = tuple(map(parts.plugin_name, plugins))  # A run is found from any folder.
        for path, field in _statements(config.plugins).items():
            _add(config, path, field)
    return config


def from_saved(saved: Mapping[str, Any]) -> ConfigDict:
    """The config that was written as JSON, by this or an earlier version.

    New fields get their defaults; retired ones are dropped.

    Raises:
      UserError: for a plugin that cannot be imported.
      AttributeError, KeyError, TypeError or ValueError: if it is damaged.
    """
    config = default_config(tuple(saved.get("plugins", ())))
    with config.unlocked():
        _overlay(config, saved)
    return config.lock()


def fields_of(config: ConfigDict) -> dict[str, Field]:
    """{dotted path: statement} of every field of the config that has one."""
    return _statements(config.get("plugins", ()))


def block_of(config: ConfigDict, path: str) -> ConfigDict:
    """The block of a config at a dotted path; the config itself for "".

    Raises:
      UserError: if the config lacks it.
    """
    for name in path.split(".") if path else ():
        if name not in config:
            raise UserError(f"{path}: the config has no such block, so it was made for another version; add it.")
        config = config[name]
    return config


def values_of(config: ConfigDict, registry: Registry, name: str) -> tuple[Part, Values]:
    """The part of that name, and its settings' values in the config, with those of the part that it extends.

    Raises:
      UserError: if there is no such part.
    """
    part = registry[name]
    values = part.settings.values_of(block_of(config, part.block) if part.settings else {})
    if "extends" in part.about:
        _, base = values_of(config, registry, part.about["extends"])
        values = Values(**(vars(base) | vars(values)))
    return part, values


def settings_of(config: ConfigDict) -> list[tuple[str, Settings]]:
    """(path of the block, settings) of all groups of settings that the config has."""
    for name in BUILT_IN:
        importlib.import_module(name)
    plugins = config.get("plugins", ())
    groups = [("", fields.RUN), *fields.BLOCKS.items()]
    for registry in parts.REGISTRIES:
        groups += [(part.block, part.settings) for part in registry.parts(plugins) if part.settings]
    return groups


def _statements(plugins: Sequence[str]) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for block, group in settings_of(ConfigDict({"plugins": tuple(plugins)})):
        found |= dict(group.walk(f"{block}." if block else ""))
    return found


def _add(config: ConfigDict, path: str, field: Field) -> None:
    """Adds the field if it is missing; an optional one is a typed reference, which takes None too."""
    *blocks, name = path.split(".")
    for block in blocks:
        if block not in config:
            config[block] = ConfigDict()
        config = config[block]
    if name not in config:
        reference = config_dict.FieldReference(field.default, field_type=field.kind)
        config[name] = reference if field.optional else field.default


def _overlay(config: ConfigDict, saved: Mapping[str, Any], prefix: str = "") -> None:
    for name, value in saved.items():
        if prefix + name in RETIRED:
            continue
        if isinstance(value, Mapping):
            if name not in config:
                config[name] = ConfigDict()
            _overlay(config[name], value, f"{prefix}{name}.")
        elif isinstance(config.get(name), ConfigDict):
            raise ValueError(f"{prefix}{name} {value!r}: is no block of fields")
        else:
            config[name] = as_tuples(value)


def as_tuples(value: Any) -> Any:
    """JSON has lists only; configs have tuples."""
    return tuple(map(as_tuples, value)) if isinstance(value, list | tuple) else value
