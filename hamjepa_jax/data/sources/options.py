"""The options after "?" in data.source, as in "shapes:5000?test=1000&difficulty=0.5"."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Option(NamedTuple):
    """One option of a source."""

    text: str  # As it is written, for messages.
    name: str
    value: str  # Empty where there is no "=".


def parted(rest: str) -> tuple[str, list[Option]]:
    """The place, and the options, of "place?name=value&name=value"."""
    place, _, text = rest.partition("?")
    named = ((option, *option.partition("=")) for option in text.split("&") if option)
    return place, [Option(option, name, value) for option, name, _, value in named]


def numbers_of(options: Iterable[Option], kinds: Mapping[str, type]) -> dict[str, int | float]:
    """{name: number of its kind}.

    Raises:
      ValueError: if a name is unknown or given twice, or a value is no plain number of its kind; 1e-05 is one.
    """
    found: dict[str, int | float] = {}
    plain = r"[0-9]{1,9}(\.[0-9]{1,9})?(e-[0-9]{1,2})?"
    for text, name, value in options:
        if name not in kinds or name in found or not re.fullmatch(plain, value):
            raise ValueError(text)
        found[name] = kinds[name](value)  # int refuses a fraction.
    return found
