"""Reads the files that runs write: metrics.jsonl (one record a line) and metrics.json."""

import json
import math
import os
import pathlib
import warnings
from collections.abc import Mapping

from hamjepa_jax.errors import UserError


def read_history(path: str | os.PathLike) -> list[dict]:
    """Records of a metrics.jsonl, in the order in which they were written.

    A line that is cut off, as a killed run leaves it, or damaged otherwise is left out. If it is not the last one,
    because a resumed run wrote on after it, there is a warning. A resumed run may have logged a step twice:
    `series` takes the later one.

    Args:
      path: the file; each line an object with "step" and scalars.

    Raises:
      UserError: if there is no such file.
    """
    lines = _read(path).splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if _is_record(record):
            records.append(record)
        elif number < len(lines):
            warnings.warn(f"{path}, line {number}: not a JSON object of a step's scalars; left out.", stacklevel=2)
    return records


def _is_record(record: object) -> bool:
    """Whether a line holds a step and numbers, or null as JSON writers put for NaN."""
    if not isinstance(record, dict) or type(record.get("step")) is not int or not 0 <= record["step"] < 2**31:
        return False
    return all(value is None or isinstance(value, int | float) for value in record.values())


def steps_per_epoch(history: list[dict]) -> int:
    """Optimiser steps in an epoch, as the last record that knows says; 0 if none does."""
    known = [r for r in history if 0 < (r.get("epoch") or 0) < math.inf]
    return round(known[-1]["step"] / known[-1]["epoch"]) if known else 0


def read_metrics(path: str | os.PathLike) -> dict:
    """The object in a metrics.json.

    Raises:
      UserError: if there is no such file or it holds no JSON object.
    """
    try:
        metrics = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f'"{path}" is no valid JSON ({error}); evaluate the run again to rewrite it.') from error
    if not isinstance(metrics, dict):
        raise UserError(
            f'"{path}" holds a {type(metrics).__name__} where an object was expected; evaluate the run again to '
            f"rewrite it."
        )
    return metrics


def read_results(path: str | os.PathLike) -> dict:
    """The object in a run's metrics.json: {"step", "settings", kind of features: {key: number}, …}.

    "settings" are those of the evaluation that no key tells, {"evaluate.source": …, …}; older files have none.

    Raises:
      UserError: if there is no such file, or it holds something else.
    """
    results = read_metrics(path)
    step, settings = results.get("step"), results.get("settings", {})
    kinds = [kind for name, kind in results.items() if name not in ("step", "settings")]
    numbers = all(
        isinstance(kind, dict) and all(isinstance(x, int | float) for x in kind.values()) for kind in kinds
    )
    if type(step) is not int or not isinstance(settings, dict) or "trained" not in results or not numbers:
        raise UserError(
            f'"{path}" is damaged (a step, and numbers by name of the trained features, were expected); evaluate '
            f"the run again to rewrite it."
        )
    return results


def select(metrics: Mapping[str, float], readout: str) -> dict[str, float]:
    """The metrics of one readout, its name taken off the keys: {"q/mean_norm": …} -> {"mean_norm": …}."""
    prefix = f"{readout}/"
    return {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}


def series(history: list[dict], key: str, against: str = "step") -> tuple[list[float], list[float]]:
    """One metric over the records that have it, in the order of their steps; of equal steps the last record counts.

    Args:
      history: records of `read_history`.
      key: name of the metric.
      against: "step" or "epoch".

    Returns:
      Abscissae and values, of equal length; null, as JSON writers put for NaN, becomes NaN.
    """
    points = {r["step"]: (r[against], r[key]) for r in history if key in r and "step" in r and against in r}
    ordered = [points[step] for step in sorted(points)]
    return [x for x, _ in ordered], [math.nan if y is None else y for _, y in ordered]


def _read(path: str | os.PathLike) -> str:
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f'"{path}": no such file; expected the one that a run writes into its workdir.')
    return path.read_text(encoding="utf-8", errors="replace")
