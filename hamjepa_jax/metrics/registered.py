"""The registered metrics: the keys that they state, the numbers that they give, their columns and panels."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hamjepa_jax import parts
from hamjepa_jax.errors import UserError
from hamjepa_jax.metrics import keys
from hamjepa_jax.metrics.contract import Column, Features, FlowStates, Panel, Protocol

Key = keys.Key
FEATURES, FLOW = "features", "flow"
_FACTS = {"keys", "columns", "panels", "of", "place", "listed", "score"}
_LATER = 1000  # The place of a metric that states none.


def registered(of: str, plugins: Sequence[str] | None = None) -> list[parts.Part]:
    """The metrics of features or of the flow, by their places.

    Args:
      of: FEATURES or FLOW.
      plugins: those whose metrics count beside the package's own; all that were loaded if None.

    Raises:
      UserError: if a registration states an unknown fact.
    """
    for part in parts.metrics.parts():
        unknown = set(part.about) - _FACTS
        if unknown:
            raise UserError(
                f"metric {part.name!r}: {min(unknown)!r} is no fact of a metric; use {', '.join(sorted(_FACTS))}."
            )
    found = [part for part in parts.metrics.parts(plugins) if part.about.get("of", FEATURES) == of]
    return sorted(found, key=lambda part: part.about.get("place", _LATER))


def declared(part: parts.Part, asked: Protocol | FlowStates) -> list[Key]:
    """The keys, without the readout, that a metric gives numbers for."""
    stated = part.about.get("keys", (part.name,))
    stated = stated(asked) if callable(stated) else stated
    return list(dict.fromkeys(keys.parse(key) if isinstance(key, str) else key for key in stated))


def expected_keys(
    protocol: Protocol, readouts: Iterable[str | None], *, plugins: Sequence[str] | None = None
) -> list[str]:
    """The printed keys of all numbers that `evaluation.evaluate_features` gives for a protocol.

    Args:
      protocol: that is asked for.
      readouts: q, p, qp or z; None for keys without a readout.
      plugins: as for `registered`.
    """
    found = [key for part in registered(FEATURES, plugins) for key in declared(part, protocol)]
    return [str(key.of(readout)) for readout in readouts for key in found]


def measure(
    x: Features | FlowStates,
    *,
    plugins: Sequence[str] | None = None,
    settings: Mapping[str, parts.Values] | None = None,
) -> dict[Key, float]:
    """The numbers of every registered metric.

    Args:
      x: features of one readout, or a flow.
      plugins: as for `registered`.
      settings: {name of a metric: values of its settings}; their defaults for the others.

    Raises:
      UserError: if two metrics have one key, or one gives other keys than it states.
    """
    of, asked = (FLOW, x) if isinstance(x, FlowStates) else (FEATURES, x.protocol)
    found: dict[Key, float] = {}
    owners: dict[Key, str] = {}
    for part in registered(of, plugins):
        stated = declared(part, asked)
        for key in stated:
            if owners.setdefault(key, part.name) != part.name:
                raise UserError(f"metrics {owners[key]!r} and {part.name!r}: both have the key {key}; rename one.")
        if stated:
            values = (settings or {}).get(part.name) or part.settings()
            given = part.make(x, values) if part.settings else part.make(x)
            found |= _as_stated(part, stated, given)
    return found


def _as_stated(part: parts.Part, stated: list[Key], given: Any) -> dict[Key, float]:
    """The numbers that a metric returned, by its keys in the order in which it states them."""
    if not isinstance(given, Mapping):
        given = {stated[0]: given}
    by_key = {keys.parse(key) if isinstance(key, str) else key: value for key, value in given.items()}
    if by_key.keys() != set(stated):
        odd = ", ".join(sorted(map(str, by_key.keys() ^ set(stated))))
        raise UserError(
            f"metric {part.name!r}: its keys and the numbers it gives differ in {odd}; correct its keys."
        )
    try:
        return {key: float(by_key[key]) for key in stated}
    except (TypeError, ValueError) as error:
        raise UserError(f"metric {part.name!r}: gives something else than numbers ({error}).") from None


def columns(table: str) -> list[Column]:
    """The columns of a table, one of RUN_TABLE, METHODS_TABLE and FLOW_TABLE, in the order of the metrics."""
    return [column for column in _all_of("columns") if table in column.tables]


def panels(figure: str) -> list[Panel]:
    """The panels of a figure, LEARNING_CURVE or TRAINING_DYNAMICS, by their places."""
    return sorted((panel for panel in _all_of("panels") if figure in panel.figures), key=lambda panel: panel.place)


def scores() -> dict[str, Callable[[float], float]]:
    """{quantity: its number -> a score, higher for features expected to be better} of the label-free metrics."""
    found = {}
    for part in registered(FEATURES):
        if "score" in part.about:
            asked = Protocol(views=True, lidar=(2, 2))
            found |= {key.quantity: part.about["score"] for key in declared(part, asked)}
    return found


def _all_of(fact: str) -> list:
    """Columns or panels of every metric; one that names no quantity has the metric's name."""
    return [
        item if item.quantity else dataclasses.replace(item, quantity=part.name)
        for part in registered(FEATURES) + registered(FLOW)
        for item in part.about.get(fact, ())
    ]


def listed(metrics: Mapping[str, float]) -> list[str]:
    """The printed keys that are shown one by one below a table: those of the flow, then of metrics that ask for it.

    Args:
      metrics: of the trained features, with all readouts.
    """
    asked = [part for part in registered(FEATURES) if part.about.get("listed")]
    quantities = {key.quantity for part in asked for key in declared(part, Protocol(views=True, lidar=(2, 2)))}
    parsed = {text: keys.parse(text) for text in metrics}
    flow = [text for text, key in parsed.items() if key.readout == FLOW]
    return flow + [text for text, key in parsed.items() if key.readout != FLOW and key.quantity in quantities]
