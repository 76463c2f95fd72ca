"""The list of a config's fields, for people."""

import textwrap

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
        value = block_of(config, above)[path.rpartition(".")[2]]
        text = f"{path} = {value!r}" + (f" (default {field.default!r})" if value != field.default else "")
        limits = [f"One of {', '.join(map(str, field.choices))}."] if field.choices else []
        limits += [f"{field.bounds().capitalize()}."] if field.bounds() else []
        lines.append(text)
        lines += textwrap.wrap(
            " ".join([field.meaning, *limits]), 110, initial_indent="    ", subsequent_indent="    "
        )
    return "\n".join(lines)
