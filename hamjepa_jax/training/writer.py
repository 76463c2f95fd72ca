"""Scalars of a run to JSON lines and trackers, under clu's method names (clu's own writers need TensorFlow)."""

import contextlib
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from hamjepa_jax import disk
from hamjepa_jax.files import put_aside, write_text
from hamjepa_jax.training import trackers as trackers_lib
from hamjepa_jax.training.processes import is_first

METRICS_LOG = "metrics.jsonl"
CONSEQUENCE = "the run can go on from its last checkpoint"


class MetricsWriter:
    """Writes {"step": …, name: value, …} lines to metrics.jsonl and the same scalars to trackers.

    A run that goes on from `first_step` first drops the lines after it, so that the file is that of a run that was
    never interrupted. A damaged log never stops a run: it is put aside, and its readable lines are kept. Of several
    processes the first one writes.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        first_step: int,
        trackers: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ):
        """Args:
        workdir: of the run.
        first_step: the step that it goes on from.
        trackers: their names.
        config: {field: value} of the run, for trackers.

        Raises:
          UserError: if the disk is full or fails, or a tracker cannot be opened.
        """
        self._path, self._file, self._trackers = workdir / METRICS_LOG, None, []
        if is_first():
            with disk.reported(self._path, CONSEQUENCE):
                records = _readable_records(self._path)
                kept = (json.dumps(record) + "\n" for record in records if record["step"] <= first_step)
                write_text(self._path, "".join(kept))
                self._file = self._path.open("a", encoding="utf-8")
                self._trackers = trackers_lib.open_trackers(
                    tuple(dict.fromkeys(trackers)),
                    workdir,
                    config or {},
                    first_step,
                    [_scalars(r) for r in records],
                )

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends the scalars of one step; values that are not finite are null in JSON.

        Raises:
          UserError: if the disk is full or fails.
        """
        if self._file is None:
            return
        finite = {k: v if math.isfinite(v) else None for k, v in scalars.items()}
        with disk.reported(self._path, CONSEQUENCE):
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            for tracker in self._trackers:
                tracker.add(step, scalars)
        self.flush()

    def write_results(self, results: trackers_lib.Results) -> None:
        """Hands what a run ends with to the trackers; metrics.json and its neighbours have it already.

        Raises:
          UserError: if the disk is full or fails.
        """
        with disk.reported(self._path, CONSEQUENCE):
            for tracker in self._trackers:
                tracker.add_results(results)
        self.flush()

    def flush(self) -> None:
        """Hands everything to the disk.

        Raises:
          UserError: if that is full or fails.
        """
        if self._file is None:
            return
        with disk.reported(self._path, CONSEQUENCE):
            self._file.flush()
            for tracker in self._trackers:
                tracker.flush()

    def close(self) -> None:
        opened: list[Any] = [self._file, *self._trackers]
        for file in opened:
            if file is not None:
                with contextlib.suppress(OSError):  # `flush` has told of it.
                    file.close()


def _readable_records(path: pathlib.Path) -> list[dict[str, Any]]:
    """The log's records; a log with damage is put aside first, unless only its end is cut off."""
    if not path.exists():
        return []
    if not path.is_file():
        put_aside(path, "is no file")
        return []
    found, odd = [], 0
    lines = path.read_bytes().splitlines(keepends=True)
    for line in lines:
        try:
            record = json.loads(line.decode())
            whole = isinstance(record["step"], int)
        except (ValueError, TypeError, KeyError, RecursionError):
            whole = False
        if whole:
            found.append(record)
        else:
            odd += 1
    if odd > (bool(lines) and not lines[-1].endswith(b"\n")):
        put_aside(path, f"has {odd} damaged line(s)")
    return found


def _scalars(record: Mapping[str, Any]) -> trackers_lib.Record:
    return record["step"], {name: value for name, value in record.items() if name != "step"}
