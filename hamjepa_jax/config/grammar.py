"""The one grammar of name=value, for the command line, --override, grids and the colon of a config file."""

import ast
import difflib
import types
from typing import Any

from ml_collections import ConfigDict

from hamjepa_jax.config.default import as_tuples, block_of, complete, fields_of
from hamjepa_jax.errors import UserError
from hamjepa_jax.parts import Field

_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def assign(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field of the config to the value that a text stands for; "None" unsets an optional one.

    Args:
      config: changed in place.
      field: dotted path.
      text: read as the field's kind: a number, True or False, text as it is, or values with commas between.

    Raises:
      UserError: if there is no such field, or the value is not one that it takes.
    """
    kind = _kind(config, field)
    if text == "None" or (kind is type(None) and not text):
        value = None
    else:
        value = read(field, text, kind)
    set_field(config, field, value)


def set_field(config: ConfigDict, field: str, value: Any) -> None:
    """Sets a field of the config to a value.

    Raises:
      UserError: if there is no such field, or the value is not one that it takes.
    """
    kind, value = _kind(config, field), as_tuples(value)
    statement: Field | None = fields_of(config).get(field)
    if statement is not None:
        statement.check(field, value)
    elif value is None and kind is not type(None):
        raise UserError(f"{field} {value!r}: needs a value.")
    block, _, name = field.rpartition(".")
    try:
        block_of(config, block)[name] = value
    except TypeError as error:
        raise UserError(f"{field} {value!r}: {' '.join(str(error).split())}") from None
    if field == "plugins":
        complete(config)


def assignment(text: str, flag: str = "--override") -> tuple[str, str]:
    """ "path.to.field=value" as (field, text of the value).

    Raises:
      UserError: if it is not of this form.
    """
    field, equals, value = text.partition("=")
    if not equals or not field:
        raise UserError(f"{flag} {text}: expected a field and its value, as in train.epochs=5.")
    return field.strip(), value


def parse_arg(arg: str | None, **defaults) -> types.SimpleNamespace:
    """Reads a config file's argument "name=value,name=value" (the part after ":" in --config=FILE:ARG).

    Args:
      arg: the argument, or None.
      **defaults: every name that is understood; a value is read as its default's type.

    Returns:
      The values as attributes.

    Raises:
      UserError: for an unknown name or a value of the wrong type.
    """
    values = dict(defaults)
    for part in filter(None, (arg or "").split(",")):
        name, equals, text = part.partition("=")
        if name not in defaults or not equals:
            known = ", ".join(f"{k}=…" for k in defaults)
            raise UserError(f"config argument {part!r}: this file understands {known}, separated by commas.")
        kind = type(defaults[name])
        try:
            values[name] = read(name, text, kind)
        except UserError:
            raise UserError(f"config argument {part!r}: {name} must be of type {kind.__name__}.") from None
    return types.SimpleNamespace(**values)


def read(name: str, text: str, kind: type) -> Any:
    """A text as a value of the kind.

    Raises:
      UserError: naming `name`, if the text is no such value.
    """
    try:
        if kind is str:
            return _unquoted(text)
        if kind is bool:
            return _BOOLS[text.lower()]
        if kind in (int, float):
            return kind(text)
        if kind is tuple:
            return _values(text)
        return _literal(text)
    except (ValueError, KeyError):
        words = {int: "a whole number", float: "a number", bool: "True or False"}
        raise UserError(f"{name} {text!r}: must be {words.get(kind, 'a value')}.") from None


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return _literal(text) if quoted else text


def _literal(text: str) -> Any:
    try:
        return as_tuples(ast.literal_eval(text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _values(text: str) -> tuple:
    """ "1,2", "(1, 2)", "[1]" and "a,b" as tuples; a single value is a tuple of one."""
    value = _literal(text.strip() or "()")
    if isinstance(value, str) and value == text.strip() and "," in text:
        value = tuple(_literal(part.strip()) for part in text.split(",") if part.strip())
    return value if isinstance(value, tuple) else (value,)


def _kind(config: ConfigDict, field: str) -> type:
    """The type of a field's values.

    Raises:
      UserError: if the config has no such field.
    """
    *blocks, name = field.split(".")
    block = config
    for part in blocks:
        block = block[part] if isinstance(block, ConfigDict) and part in block else None
    if not isinstance(block, ConfigDict) or name not in block or isinstance(block[name], ConfigDict):
        near = difflib.get_close_matches(field, fields_of(config), n=1, cutoff=0.8)
        hint = f"did you mean {near[0]}" if near else "python -m hamjepa_jax.config lists every field"
        raise UserError(f"{field}: the config has no such field; {hint}.")
    return block.get_type(name)
