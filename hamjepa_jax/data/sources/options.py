"""The options after "?" in data.source, as in "shapes:5000?test=1000&difficulty=0.5"."""

import re
from collections.abc import Iterable, Mapping


def pairs_of(text: str) -> list[tuple[str, str]]:
    """(name, value) of each of "name=value&name=value"; an empty value where there is no "="."""
    return [(name, value) for name, _, value in (option.partition("=") for option in text.split("&") if option)]


def numbers_of(pairs: Iterable[tuple[str, str]], kinds: Mapping[str, type]) -> dict[str, int | float]:
    """{name: number of its kind}.

    Raises:
      ValueError: if a name is unknown or given twice, or a value is no plain number of its kind; 1e-05 is one.
    """
    found: dict[str, int | float] = {}
    plain = r"[0-9]{1,9}(\.[0-9]{1,9})?(e-[0-9]{1,2})?"
    for name, text in pairs:
        if name not in kinds or name in found or not re.fullmatch(plain, text):
            raise ValueError(f"{name}={text}")
        found[name] = kinds[name](text)  # int refuses a fraction.
    return found
