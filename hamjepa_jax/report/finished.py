"""Finished runs read from their workdirs, and the refusal to average runs that do not belong together."""

import json
import logging
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hamjepa_jax.config import free
from hamjepa_jax.errors import UserError
from hamjepa_jax.metrics import keys
from hamjepa_jax.report import logs
from hamjepa_jax.report.logs import read_history, read_metrics, read_results, select
from hamjepa_jax.report.tables import MISSING, READOUT_NAMES, rows_of

log = logging.getLogger(__name__)
SESSIONS_FILE = "sessions.json"
# Settings that change neither the trained weights nor the meaning of a metric's key; the data are compared by their
# content.
FREE_FIELDS = (*free.FREE_FIELDS, "seed", "data.store")
# Among those, settings of the evaluation that change what is measured, and no metric's key tells them.
TOLD_BY_NO_KEY = ("evaluate.source", "evaluate.teacher")


class FinishedRun(NamedTuple):
    """Attributes:
    workdir: of the run.
    config: {field: value}, flat; of TOLD_BY_NO_KEY those that its metrics were measured with.
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
        return readouts_of(self.metrics["trained"])

    def flow(self) -> dict[str, float]:
        """Metrics of the learned flow, without "flow/"; empty if it was not measured."""
        return select(self.metrics["trained"], "flow")

    def references(self) -> dict[str, dict[str, float]]:
        """{"untrained q" or the like, "raw pixels": its metrics} of the features to compare with."""
        return rows_of({kind: metrics for kind, metrics in self.metrics.items() if kind != "trained"})

    def epoch(self) -> float:
        """The epoch that the evaluated weights were trained to."""
        step = self.metrics["step"]
        return next((r["epoch"] for r in self.history if r["step"] == step and r.get("epoch")), math.nan)

    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch, from the log; 0 if nothing was logged."""
        return logs.steps_per_epoch(self.history)


def _config_of(workdir: pathlib.Path, saved: Mapping[str, Any]) -> dict[str, Any]:
    """{field: value} of a saved config. Fields that its version did not have are at their defaults.

    Raises:
      UserError: if it is damaged.
    """
    from hamjepa_jax.config import from_saved  # Imports jax, which the report's other parts do without.

    try:
        config = free.flat_fields(from_saved(saved["config"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        config = {}
    if type(config.get("seed")) is not int or not isinstance(config.get("data.source"), str):
        raise UserError(f"{workdir / 'config.json'}: is damaged (it has no config of a run); restore a copy of it.")
    return config


def readouts_of(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """{readout: its metrics} of those that the metrics have."""
    found = {name: select(metrics, name) for name in READOUT_NAMES}
    return {name: of_readout for name, of_readout in found.items() if of_readout}


def read_run(workdir: pathlib.Path) -> FinishedRun:
    """Reads a finished run.

    Raises:
      UserError: if a file is missing or damaged.
    """
    saved, metrics = read_metrics(workdir / "config.json"), read_results(workdir / "metrics.json")
    return FinishedRun(
        workdir=workdir,
        config=_config_of(workdir, saved) | settings_of(metrics),
        fingerprint=saved.get("data_fingerprint"),
        metrics=metrics,
        summary=_read_summary(workdir / "summary.json"),
        history=read_history(workdir / "metrics.jsonl"),
        environment=_read_environment(workdir / "run.json"),
        sessions=read_sessions(workdir),
    )


def settings_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """{field: value} of TOLD_BY_NO_KEY that the results in a metrics.json name.

    They may differ from the run's config: `--mode=evaluate` takes any. Earlier versions named none.
    """
    return {name: value for name, value in results.get("settings", {}).items() if name in TOLD_BY_NO_KEY}


def measured(workdir: pathlib.Path) -> dict | None:
    """The results in metrics.json; None if there is no such file, or it is damaged, which the log says."""
    path = workdir / "metrics.json"
    if not path.exists():
        return None
    try:
        return read_results(path)
    except UserError as error:
        log.warning("%s", error)
        return None


def read_sessions(workdir: pathlib.Path) -> list[dict]:
    """The records of sessions.json; none if there is no such file or it is damaged, which the log says."""
    path = workdir / SESSIONS_FILE
    if not path.exists():
        return []
    try:
        sessions = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(s["begun"], str) and math.isfinite(s["seconds"]) for s in sessions):
            return sessions
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    log.warning("%s: is damaged, so the time that the run took before is not known", path)
    return []


def _read_summary(path: pathlib.Path) -> dict:
    """Raises:
    UserError: if there is no such file, or it is damaged.
    """
    summary = read_metrics(path)
    try:
        if not summary or set(summary) - set(READOUT_NAMES):
            raise LookupError
        for parts in summary.values():
            histograms = [parts[name] for name in ("cosine_histogram", "norm_histogram")]
            lists = [parts["spectrum"], *(h[name] for h in histograms for name in ("edges", "counts"))]
            numbers = [*parts["knn_top1"].values(), *map(int, parts["knn_top1"]), *(x for xs in lists for x in xs)]
            if not all(isinstance(x, int | float) for x in numbers):
                raise TypeError
            if any(len(h["edges"]) != len(h["counts"]) + 1 for h in histograms) or not parts["spectrum"]:
                raise ValueError
    except (AttributeError, LookupError, TypeError, ValueError):
        raise UserError(f'"{path}" is damaged; evaluate the run again to rewrite it.') from None
    return summary


def _read_environment(path: pathlib.Path) -> dict:
    """The content of run.json; if it is damaged or missing, the log says so, and dashes stand for the facts."""
    try:
        found = read_metrics(path)
        git, devices = found["git"], found["devices"]
        texts = [found["time"], found["versions"]["jax"], *devices, *([git["commit"]] if git else [])]
        if isinstance(devices, list) and isinstance(git, dict | None) and all(isinstance(t, str) for t in texts):
            return found
    except (UserError, LookupError, TypeError):
        pass
    log.warning("%s: is missing or damaged, so the machine and the code of that run are not known", path)
    return {"time": MISSING, "devices": [], "versions": {"jax": MISSING}, "git": None, "backend": "cpu"}


def alike(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Runs that may be averaged: of one config, data set, protocol and step, and of different seeds.

    Measures other than accuracies that only some of the runs have, since a later version added them, are left out,
    which the log says.

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
        odd = sorted(filter(keys.is_accuracy, run.metrics["trained"].keys() ^ first.metrics["trained"].keys()))
        if odd:
            differences.append(f"what was measured ({', '.join(odd[:3])}{', …' * (len(odd) > 3)})")
        if differences:
            raise UserError(
                f"{run.workdir} and {first.workdir} differ in {'; '.join(differences)}: such runs are never "
                f"averaged."
            )
    return _with_shared_measures(runs)


def _with_shared_measures(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    measured_by = [run.metrics["trained"].keys() for run in runs]
    shared = set.intersection(*map(set, measured_by))
    odd = sorted(set().union(*measured_by) - shared)
    if odd:
        log.warning(
            "%s and others of its kind: %s left out, which not all of them have", runs[0].workdir, ", ".join(odd)
        )
    trained = [{key: value for key, value in run.metrics["trained"].items() if key in shared} for run in runs]
    return [run._replace(metrics=run.metrics | {"trained": t}) for run, t in zip(runs, trained, strict=True)]


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
    return [f for f in fields if one.get(f) != other.get(f) and not is_free(f)]


def is_free(field: str) -> bool:
    """Whether runs that differ in the field may be averaged, and stand beside published numbers."""
    return field.startswith(FREE_FIELDS) and field not in TOLD_BY_NO_KEY


def evaluated_on(run: FinishedRun) -> str:
    """A sentence with a space in front where a run was evaluated on other images than its own; else ""."""
    source = run.config.get("evaluate.source")
    return "" if source is None else f" Evaluated on the training and test images of {source}."
