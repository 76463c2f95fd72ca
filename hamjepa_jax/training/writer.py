"""Scalars of a run to JSON lines and TensorBoard, under clu's method names (clu's own writers need TensorFlow)."""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from hamjepa_jax import disk
from hamjepa_jax.files import put_aside, room_for_folder, write_text
from hamjepa_jax.training.processes import is_first

METRICS_LOG = "metrics.jsonl"
CONSEQUENCE = "the run can go on from its last checkpoint"


class MetricsWriter:
    """Writes {"step": …, name: value, …} lines to metrics.jsonl and the same scalars to TensorBoard.

    A run that goes on from `first_step` first drops the lines after it, so that the file is that of a run that was
    never interrupted. A damaged log never stops a run: it is put aside, and its readable lines are kept. Of several
    processes the first one writes.
    """

    def __init__(self, workdir: pathlib.Path, *, first_step: int, tensorboard: bool):
        self._path, self._file, self._board = workdir / METRICS_LOG, None, None
        if is_first():
            with disk.reported(self._path, CONSEQUENCE):
                self._open(first_step, tensorboard)

    def _open(self, first_step: int, tensorboard: bool) -> None:
        kept = [line for step, line in _readable_lines(self._path) if step <= first_step]
        write_text(self._path, "".join(kept))
        self._file = self._path.open("a", encoding="utf-8")
        if tensorboard:
            self._board = _Board(self._path.parent / "tensorboard", first_step)

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
            if self._board is not None:
                self._board.add(step, scalars)
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
            if self._board is not None:
                self._board.flush()

    def close(self) -> None:
        for file in (self._file, self._board):
            if file is not None:
                with contextlib.suppress(OSError):  # `flush` has told of it.
                    file.close()


class _Board:
    """TensorBoard's event file, written at once: tensorboardX's own writer has a thread that a full disk hangs."""

    def __init__(self, folder: pathlib.Path, first_step: int):
        """From here on TensorBoard hides the points after `first_step` in the folder's other files."""
        self._events = EventsWriter(str(room_for_folder(folder) / "events"))
        self._write(first_step + 1, file_version="brain.Event:2")
        self._write(first_step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(step, summary=Summary(value=values))

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._events.close()

    def _write(self, step: int, **content) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))


def _readable_lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """(step, line) of the log's records; a log with damage is put aside first, unless only its end is cut off."""
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
            found.append((record["step"], json.dumps(record) + "\n"))
        else:
            odd += 1
    if odd > (bool(lines) and not lines[-1].endswith(b"\n")):
        put_aside(path, f"has {odd} damaged line(s)")
    return found
