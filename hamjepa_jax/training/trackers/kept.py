"""Trackers of a run and what each has been given, kept in the workdir: a run that goes on doubles no point.

trackers.json has for each tracker {"id", "active": whether the last session wrote to it, "step", "names": what it
has of the newest step that it was given, "results_of": the step of the results it has}.
"""

import importlib.util
import json
import logging
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hamjepa_jax.errors import UserError
from hamjepa_jax.files import put_aside, write_json
from hamjepa_jax.training.trackers.contract import Results, Run, Tracker

TRACKERS_FILE = "trackers.json"
Record = tuple[int, Mapping[str, Any]]  # A step and its scalars; one that was not finite is None.
log = logging.getLogger("hamjepa_jax.train")


def check_installed(names: Iterable[str]) -> None:
    """Refuses trackers whose package is missing.

    Raises:
      UserError: naming the extra.
    """
    for name in names:
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise UserError(
                f"log.trackers {name!r}: the package {name} is not installed; pip install 'hamjepa-jax[{name}]', "
                f"or leave it out."
            )


def open_trackers(
    names: Sequence[str],
    workdir: pathlib.Path,
    config: Mapping[str, Any],
    first_step: int,
    before: Sequence[Record],
) -> "list[Tracked]":
    """Opens the run's records, and gives each what it lacks of the log up to `first_step`.

    Args:
      names: of the trackers.
      workdir: of the run.
      config: {field: value} of its fields.
      first_step: the step that the run goes on from.
      before: records of its log, also those after the first step, which the run will come to again.

    Raises:
      UserError: for a tracker that cannot be opened, with its own reason.
    """
    if not names and not (workdir / TRACKERS_FILE).exists():
        return []
    kept = _read(workdir / TRACKERS_FILE)
    for state in kept.values():
        if state["active"] and before:
            _advance(state, before)
    opened = []
    for name in names:
        state = kept.setdefault(name, {"id": None, "active": False, "step": -1, "names": [], "results_of": None})
        tracker = _opened(name, Run(workdir, config, first_step, state["id"], state["results_of"] is not None))
        state["id"] = tracker.id
        write_json(workdir / TRACKERS_FILE, kept)
        opened.append(Tracked(name, tracker, state, lambda: write_json(workdir / TRACKERS_FILE, kept)))
    for name, state in kept.items():
        state["active"] = name in names
    for tracked in opened:
        tracked.start([record for record in before if record[0] <= first_step])
    write_json(workdir / TRACKERS_FILE, kept)
    return opened


class Tracked:
    """A tracker that gets each point once.

    One that fails is left alone for the rest of the session, with a warning: training is worth more than its
    record. The next session gives it what it missed. TensorBoard's files are on the disk of the run, whose faults
    end it.
    """

    def __init__(self, name: str, tracker: Tracker, state: dict, keep: Callable[[], None]):
        self._name, self._tracker, self._state, self._keep, self._failed = name, tracker, state, keep, False

    def start(self, before: Iterable[Record]) -> None:
        """Gives the tracker what it lacks of the log's records up to the step that the run goes on from."""
        if not self._tracker.rewinds:
            for step, scalars in before:
                self.add(step, scalars)

    def add(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Gives the tracker the finite scalars that it does not have yet; one that rewinds takes all."""
        if self._tracker.rewinds:
            self._tracker.add(step, scalars)
        elif step >= self._state["step"]:
            had = self._state["names"] if step == self._state["step"] else []
            new = {k: v for k, v in scalars.items() if k not in had and v is not None and math.isfinite(v)}
            if new and self._attempt(lambda: self._tracker.add(step, new)):
                self._state.update(step=step, names=[*had, *new])

    def add_results(self, results: Results) -> None:
        if self._state["results_of"] != results.step and self._attempt(lambda: self._tracker.add_results(results)):
            self._state["results_of"] = results.step
            self._keep()

    def flush(self) -> None:
        self._attempt(self._tracker.flush)

    def close(self) -> None:
        self._attempt(self._tracker.close)

    def _attempt(self, work: Callable[[], None]) -> bool:
        if self._failed:
            return False
        try:
            work()
        except Exception as error:
            if self._name == "tensorboard":
                raise
            self._failed, self._state["active"] = True, False
            self._keep()
            log.warning(
                "log.trackers %r: it failed, and gets nothing more from this session (%s)", self._name, error
            )
        return not self._failed


def _opened(name: str, run: Run) -> Tracker:
    if name == "tensorboard":
        from hamjepa_jax.training.trackers.tensorboard import TensorBoard

        return TensorBoard(run)
    try:
        if name == "wandb":
            from hamjepa_jax.training.trackers.wandb import WandB

            return WandB(run)
        from hamjepa_jax.training.trackers.mlflow import MLflow

        return MLflow(run)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"log.trackers {name!r}: it could not be opened ({reason}); set it up, or leave it out."
        ) from error


def _advance(state: dict, before: Sequence[Record]) -> None:
    """The newest step that a tracker was given, by the log that it was written beside."""
    newest = max(step for step, _ in before)
    names = {name for step, scalars in before if step == newest for name in scalars}
    if newest > state["step"]:
        state["step"], state["names"] = newest, sorted(names)
    elif newest == state["step"]:
        state["names"] = sorted(names.union(state["names"]))


def _read(file: pathlib.Path) -> dict[str, dict[str, Any]]:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        for state in kept.values():
            state["id"], state["active"], state["step"], state["names"], state["results_of"]
        return kept
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        put_aside(file, "is damaged")
        return {}
