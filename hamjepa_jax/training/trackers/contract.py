"""What a tracker is given, and the functions it has."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

NAMES = ("tensorboard", "wandb", "mlflow")


class Run(NamedTuple):
    """The run that a record is opened for.

    Attributes:
      workdir: its folder.
      config: {field: value} of all its fields.
      first_step: the step that it goes on from; 0 at its start.
      id: of the record that it goes on in; None for a new one.
      finished: whether the record has the results already.
    """

    workdir: pathlib.Path
    config: Mapping[str, Any]
    first_step: int
    id: str | None
    finished: bool


class Results(NamedTuple):
    """What a run ends with.

    Attributes:
      step: of the evaluated weights.
      metrics: {name: value} of the final evaluation.
      table: the same as a text for people.
      figures: {name: PNG file}.
    """

    step: int
    metrics: Mapping[str, float]
    table: str
    figures: Mapping[str, pathlib.Path]


class Tracker(Protocol):
    """An open record.

    Attributes:
      id: by which a run that goes on finds it again.
      rewinds: whether points after the first step are hidden when it is opened again, so that they may come again.
    """

    id: str
    rewinds: bool

    def add(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def add_results(self, results: Results) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...
