"""Measures the cost of a config's checkpoints: their size, the training's stall, the time to disk and back."""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections

from hamjepa_jax.benchmark.prepared import prepare
from hamjepa_jax.run.restore import open_checkpoints
from hamjepa_jax.training.checkpoint import Checkpoints
from hamjepa_jax.training.state import TrainState


class CheckpointCost(NamedTuple):
    """Sizes in bytes and median seconds.

    Attributes:
      state: size of the training state.
      on_disk: size of one checkpoint.
      stall: until `save` gives the training back.
      written: until the checkpoint is on disk, with nothing else to do.
      restored: until it is on the devices again, its checksum verified.
      step: a training step, waited for, when nothing is being saved.
      step_while_saving: the same where a save is under way as it begins; None if there was none.
      steps_while_saving: how many these were.
    """

    state: int
    on_disk: int
    stall: float
    written: float
    restored: float
    step: float
    step_while_saving: float | None
    steps_while_saving: int


class _Saves(NamedTuple):
    """Seconds of each measurement, see `CheckpointCost`."""

    plain: list[float]
    stalls: list[float]
    written: list[float]
    during: list[float]


def benchmark_checkpoint(
    config: ml_collections.ConfigDict, rounds: int, folder: pathlib.Path | None
) -> CheckpointCost:
    """Trains on the config's own data, saves in between, and restores.

    Args:
      config: of the run.
      rounds: saves that are waited for, saves that training goes on beside, and restorings.
      folder: on the disk to write to; the system's folder for temporary files if None.
    """
    setup, store, batch, compiled, _ = prepare(config)
    state = setup.init()

    def step() -> TrainState:
        nonlocal state
        state, metrics = compiled(state, store, batch)
        jax.block_until_ready((state, metrics))
        return state

    step()
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        workdir = pathlib.Path(directory)
        checkpoints = open_checkpoints(config, workdir, read_only=False)
        saves = _save(checkpoints, step, rounds)
        checkpoints.close()
        newest = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name))
        on_disk = sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())
        with open_checkpoints(config, workdir) as checkpoints:
            # The first restoring compiles the checksum's program.
            restored = [_seconds(lambda: _restore(checkpoints, setup.abstract)) for _ in range(rounds + 1)][1:]
    return CheckpointCost(
        state=sum(x.nbytes for x in jax.tree.leaves(state)),
        on_disk=on_disk,
        stall=statistics.median(saves.stalls),
        written=statistics.median(saves.written),
        restored=statistics.median(restored),
        step=statistics.median(saves.plain),
        step_while_saving=statistics.median(saves.during) if saves.during else None,
        steps_while_saving=len(saves.during),
    )


def _save(checkpoints: Checkpoints, step: Callable[[], TrainState], rounds: int) -> _Saves:
    """Saves after steps, in turn waiting for the disk and training on beside it; `step` gives the new state."""
    saves = _Saves([], [], [], [])
    checkpoints.save(0, step(), {})  # Compiles its checksum.
    checkpoints.wait()
    for number in range(1, 2 * rounds, 2):
        saves.plain.append(_seconds(step))
        state = step()
        start = time.perf_counter()
        checkpoints.save(number, state, {})
        saves.stalls.append(time.perf_counter() - start)
        checkpoints.wait()
        saves.written.append(time.perf_counter() - start)
        checkpoints.save(number + 1, state, {})
        while checkpoints.saving():
            saves.during.append(_seconds(step))
        checkpoints.wait()
    return saves


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _restore(checkpoints: Checkpoints, abstract) -> None:
    jax.block_until_ready(checkpoints.restore(abstract))


def describe(report: CheckpointCost) -> str:
    """The report as text."""
    r, device = report, jax.devices()[0].device_kind
    lines = [
        f"{jax.device_count()} × {device}, jax {jax.__version__}",
        f"state {r.state / 1e6:,.1f} MB, {r.on_disk / 1e6:,.1f} MB on disk",
        f"save: {r.stall:.3f} s until training goes on ({r.stall / r.step:.2f} steps), {r.written:.2f} s to disk",
        f"restore: {r.restored:.2f} s",
        f"step: {r.step:.3f} s",
    ]
    if r.step_while_saving is not None:
        slower = r.step_while_saving / r.step - 1
        lines.append(
            f"step while saving: {r.step_while_saving:.3f} s ({slower:+.1%}; median of {r.steps_while_saving})"
        )
    return "\n".join(lines)
