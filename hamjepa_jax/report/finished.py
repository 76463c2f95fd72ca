"""Finished runs read from their workdirs, and the refusal to average runs that do not belong together."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from hamjepa_jax.config import free
from hamjepa_jax.errors import UserError
from hamjepa_jax.report.logs import read_history, read_metrics, select
from hamjepa_jax.report.tables import READOUT_NAMES, rows_of

SESSIONS_FILE = "sessions.json"
# Settings that change neither the trained weights nor the meaning of a metric's key; the data are compared by their
# content.
FREE_FIELDS = (*free.FREE_FIELDS, "seed", "data.store")


class FinishedRun(NamedTuple):
    """Attributes:
    workdir: of the run.
    config: {field: value}, flat.
    fingerprint: of the data.
    metrics: of metrics.json.
    summary: of summary.json, for the four-panel figures.
    history: records of metrics.jsonl.
    environment: of run.json.
    sessions: of sessions.json, one for each time the run was begun or resumed; empty if not kept.
    """

    workdir: pathlib.Path
    config: dict[str, Any]
    fingerprint: str
    metrics: dict
    summary: dict
    history: list[dict]
    environment: dict
    sessions: list[dict]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    def readouts(self) -> dict[str, dict[str, float]]:
        """{readout: its metrics} of the trained features."""
        found = {name: select(self.metrics["trained"], name) for name in READOUT_NAMES}
        return {name: metrics for name, metrics in found.items() if metrics}

    def flow(self) -> dict[str, float]:
        """Metrics of the learned flow, without "flow/"; empty if it was not measured."""
        return select(self.metrics["trained"], "flow")

    def references(self) -> dict[str, dict[str, float]]:
        """{"untrained q" or the like, "raw pixels": its metrics} of the features to compare with."""
        return rows_of({kind: metrics for kind, metrics in self.metrics.items() if kind != "trained"})

    def epoch(self) -> float:
        """The epoch that the evaluated weights were trained to."""
        return next((r["epoch"] for r in self.history if r.get("step") == self.metrics["step"]), math.nan)

    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch, from the log; 0 if nothing was logged."""
        return next((round(r["step"] / r["epoch"]) for r in self.history if r.get("epoch")), 0)


def read_run(workdir: pathlib.Path) -> FinishedRun:
    """Reads a finished run.

    Raises:
      UserError: if a file is missing or damaged.
    """
    saved = read_metrics(workdir / "config.json")
    sessions = workdir / SESSIONS_FILE
    return FinishedRun(
        workdir=workdir,
        config=free.flatten(saved["config"]),
        fingerprint=saved["data_fingerprint"],
        metrics=read_metrics(workdir / "metrics.json"),
        summary=read_metrics(workdir / "summary.json"),
        history=read_history(workdir / "metrics.jsonl"),
        environment=read_metrics(workdir / "run.json"),
        sessions=json.loads(sessions.read_text(encoding="utf-8")) if sessions.exists() else [],
    )


def refuse_mixed(runs: Sequence[FinishedRun]) -> None:
    """Accepts runs that may be averaged: of one config, data set, protocol and step, and of different seeds.

    Raises:
      UserError: naming the two workdirs and the fields that differ.
    """
    first, seeds = runs[0], {}
    for run in runs:
        if run.seed in seeds:
            raise UserError(
                f"{run.workdir} and {seeds[run.seed]} are both of seed {run.seed}: one run would count twice."
            )
        seeds[run.seed] = run.workdir
        differences = [
            f"{field}: {first.config.get(field, '(absent)')!r} → {run.config.get(field, '(absent)')!r}"
            for field in differing(first.config, run.config)
        ]
        if run.fingerprint != first.fingerprint:
            differences.append(f"the images of data.source ({first.config['data.source']!r} before)")
        if run.metrics["step"] != first.metrics["step"]:
            differences.append(f"the step that was evaluated: {first.metrics['step']} → {run.metrics['step']}")
        if run.metrics["trained"].keys() != first.metrics["trained"].keys():
            odd = sorted(run.metrics["trained"].keys() ^ first.metrics["trained"].keys())
            differences.append(f"what was measured ({', '.join(odd[:3])}{', …' * (len(odd) > 3)})")
        if differences:
            raise UserError(
                f"{run.workdir} and {first.workdir} differ in {'; '.join(differences)}: such runs are never "
                f"averaged."
            )


def refuse_other_data(runs: Sequence[FinishedRun]) -> None:
    """Accepts methods that were trained and tested on the same images.

    Raises:
      UserError: naming two workdirs.
    """
    for run in runs[1:]:
        if run.fingerprint != runs[0].fingerprint:
            raise UserError(
                f"{run.workdir} and {runs[0].workdir} were run on different images (data.source "
                f"{run.config['data.source']!r} and {runs[0].config['data.source']!r}): they cannot be compared."
            )


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The fields in which two flat configs differ, without the free ones."""
    fields = sorted(one.keys() | other.keys())
    return [f for f in fields if one.get(f) != other.get(f) and not f.startswith(FREE_FIELDS)]
