"""The list of a config's fields, and of the differences of two, for people."""

import textwrap
from typing import Any

import ml_collections

from hamjepa_jax.config.default import block_of, fields_of


def describe(config: ml_collections.ConfigDict) -> str:
    """Every field: its value, its default if that differs, and below them its meaning and bounds."""
    lines, block = [], None
    for path, field in fields_of(config).items():
        above, _, _ = path.rpartition(".")
        if above != block:
            lines += [""] * bool(lines)
            block = above
        value = _value(config, path)
        text = f"{path} = {value!r}" + (f" (default {field.default!r})" if value != field.default else "")
        limits = [f"One of {', '.join(map(str, field.choices))}."] if field.choices else []
        limits += [f"{field.bounds().capitalize()}."] if field.bounds() else []
        lines.append(text)
        lines += textwrap.wrap(
            " ".join([field.meaning, *limits]), 110, initial_indent="    ", subsequent_indent="    "
        )
    return "\n".join(lines)


def differences(one: ml_collections.ConfigDict, other: ml_collections.ConfigDict) -> str:
    """A line for every field whose value is another one in `other`, "field = one's | other's".

    A field that one of them lacks, of a plugin for example, has "–" there.
    """
    values = [{path: repr(_value(config, path)) for path in fields_of(config)} for config in (one, other)]
    paths = dict.fromkeys([*values[0], *values[1]])
    shown = [(path, *(of.get(path, "–") for of in values)) for path in paths]
    return "\n".join(f"{path} = {a} | {b}" for path, a, b in shown if a != b) or "the two are the same"


def _value(config: ml_collections.ConfigDict, path: str) -> Any:
    above, _, name = path.rpartition(".")
    return block_of(config, above)[name]
