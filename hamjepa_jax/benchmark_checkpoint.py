"""What a checkpoint of a config costs: its size, the training's stall, the time to disk and back.

python -m hamjepa_jax.benchmark checkpoint --config=configs/NAME.py [--workdir=DIR on the disk to measure]
"""

import contextlib
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections

from hamjepa_jax import build
from hamjepa_jax import config as config_lib
from hamjepa_jax.data import open_source
from hamjepa_jax.inputs import open_inputs
from hamjepa_jax.restore import initial_state, open_checkpoints
from hamjepa_jax.train import compile_step
from hamjepa_jax.training.checkpoint import Checkpoints
from hamjepa_jax.training.mesh import make_mesh


class CheckpointReport(NamedTuple):
    """Sizes in bytes and median seconds.

    Attributes:
      state: size of the training state.
      on_disk: of one checkpoint.
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


def benchmark_checkpoint(
    config: ml_collections.ConfigDict, rounds: int, folder: pathlib.Path | None
) -> CheckpointReport:
    """Trains on the config's own data, saves in between, and restores.

    Args:
      config: of the run.
      rounds: saves that are waited for, saves that training goes on beside, and restorings.
      folder: on the disk to write to; the system's folder for temporary files if None.
    """
    config.train.steps_per_dispatch = 1
    config_lib.validate(config, jax.device_count())
    mesh = make_mesh(config.mesh.fsdp)
    source = open_source(config.data.source, loader=config.data.loader)
    config_lib.validate_durations(config, len(source.train))
    inputs = open_inputs(config, source.train, mesh)
    training = build.build_training(config, build.build_model(config), len(source.train), mesh, views=inputs.views)
    abstract, init = initial_state(config, training, mesh)
    with contextlib.closing(inputs.batches(0)) as batches:
        batch = next(batches)
    compiled, state = compile_step(training, mesh, abstract, inputs.store, batch), init()

    def step() -> None:
        nonlocal state
        state, metrics = compiled(state, inputs.store, batch)
        jax.block_until_ready((state, metrics))

    step()
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        workdir = pathlib.Path(directory)
        checkpoints = open_checkpoints(config, workdir, read_only=False)
        plain, stalls, written, during = [], [], [], []
        checkpoints.save(0, state, {})  # Compiles its checksum.
        checkpoints.wait()
        for number in range(1, 2 * rounds, 2):
            plain.append(_seconds(step))
            start = time.perf_counter()
            checkpoints.save(number, state, {})
            stalls.append(time.perf_counter() - start)
            checkpoints.wait()
            written.append(time.perf_counter() - start)
            checkpoints.save(number + 1, state, {})
            while checkpoints.saving():
                during.append(_seconds(step))
            checkpoints.wait()
        checkpoints.close()
        newest = workdir / "checkpoints" / str(number + 1)
        on_disk = sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())
        with open_checkpoints(config, workdir) as checkpoints:
            restored = [_seconds(lambda: _restore(checkpoints, abstract)) for _ in range(rounds + 1)][1:]
    return CheckpointReport(
        state=sum(x.nbytes for x in jax.tree.leaves(state)),
        on_disk=on_disk,
        stall=statistics.median(stalls),
        written=statistics.median(written),
        restored=statistics.median(restored),
        step=statistics.median(plain),
        step_while_saving=statistics.median(during) if during else None,
        steps_while_saving=len(during),
    )


def _seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _restore(checkpoints: Checkpoints, abstract) -> None:
    jax.block_until_ready(checkpoints.restore(abstract))


def describe(report: CheckpointReport) -> str:
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
