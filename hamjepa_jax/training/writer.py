"""Scalars of a run to JSON lines and TensorBoard, behind clu's method names (clu's own writers need TensorFlow)."""

import json
import math
import pathlib
from collections.abc import Mapping

import tensorboardX

METRICS_LOG = "metrics.jsonl"


class MetricsWriter:
    """Writes {"step": …, name: value, …} lines to metrics.jsonl and the same scalars to TensorBoard.

    A run that goes on from `first_step` first drops the lines behind it, so that the file is that of a run that was
    never interrupted.
    """

    def __init__(self, workdir: pathlib.Path, *, first_step: int, tensorboard: bool):
        path = workdir / METRICS_LOG
        kept = [line for line in _complete_lines(path) if json.loads(line)["step"] <= first_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(kept))
        temporary.replace(path)
        self._file = path.open("a")
        self._board = None
        if tensorboard:
            self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends the scalars of one step; values that JSON has no number for are written as null."""
        finite = {k: v if math.isfinite(v) else None for k, v in scalars.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        self._file.flush()
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        self.flush()
        self._file.close()
        if self._board is not None:
            self._board.close()


def _complete_lines(path: pathlib.Path) -> list[str]:
    """Lines that were written whole; a kill can cut the last one."""
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("}\n")]
