"""Workdirs written and read without the data of the run: what comes in from other formats, and what goes out."""

import json
import logging
import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
from jax.sharding import SingleDeviceSharding

from hamjepa_jax import build, command_line
from hamjepa_jax import config as config_lib
from hamjepa_jax.errors import UserError
from hamjepa_jax.training.checkpoint import Checkpoints, read_as_saved
from hamjepa_jax.training.mesh import make_mesh
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.workdir import environment

ConfigDict = ml_collections.ConfigDict
log = logging.getLogger(__name__)


class Networks(NamedTuple):
    """Attributes:
    step: of the checkpoint.
    params, batch_stats: see `training.state.TrainState`.
    """

    step: int
    params: dict[str, Any]
    batch_stats: dict[str, Any]


def fresh_state(config: ConfigDict) -> TrainState:
    """An untrained state of step 0, made without opening any images.

    Raises:
      UserError: for a config that cannot work.
    """
    config_lib.validate(config, num_devices=1)
    config = config.copy_and_resolve_references()
    config.optimizer.warmup = "0 steps"  # Schedules have no part in the state; this one suits any number of images.
    training = build.build_training(config, build.build_model(config), config.train.batch_size, make_mesh())
    return jax.jit(lambda: training.init(build.init_key(config)))()


def write_workdir(out: str | pathlib.Path, config: ConfigDict, state: TrainState, origin: dict[str, Any]) -> None:
    """Makes a workdir that can be evaluated and trained on; its images are those it is first trained on.

    Args:
      out: folder without a run, made if missing.
      config: of the run.
      state: saved as the only checkpoint.
      origin: where the weights are from; kept in config.json.

    Raises:
      UserError: if there is a run in the folder, or it cannot be written.
    """
    out = command_line.make_folder(out, "--out")
    if (out / "config.json").exists():
        raise UserError(f"--out {out}: there is a run in it; choose another folder.")
    c = config.checkpoint
    checkpoints = Checkpoints(
        out / "checkpoints", keep_latest=c.keep_latest, keep_best=c.keep_best, best_metric=c.best_metric
    )
    checkpoints.save(int(state.step), state, {})
    checkpoints.wait()
    checkpoints.close()
    (out / "run.json").write_text(json.dumps(environment(), indent=2))
    record = {"config": json.loads(config.to_json_best_effort()), "data_fingerprint": None, "origin": origin}
    (out / "config.json").write_text(json.dumps(record, indent=2))


def read_networks(workdir: str | pathlib.Path, step: int | None = None) -> Networks:
    """The networks' weights of a checkpoint, on one device, whatever objective and devices they were trained with.

    Args:
      workdir: of a run.
      step: the checkpoint; the newest readable one if None.

    Raises:
      UserError: if there is no such checkpoint, or none can be read.
    """
    directory = pathlib.Path(workdir).absolute() / "checkpoints"
    steps = sorted((int(p.name) for p in directory.glob("*") if p.name.isdigit()), reverse=True)
    if step is not None and step not in steps:
        have = ", ".join(map(str, steps[::-1])) or "none"
        raise UserError(f"checkpoint {step}: {directory} has no such step; it has {have}.")
    sharding = SingleDeviceSharding(jax.devices()[0])
    for candidate in steps if step is None else [step]:
        try:
            return _networks(candidate, read_as_saved(directory / str(candidate), sharding))
        except Exception as error:  # Whatever is wrong inside, the one before may be readable.
            log.warning("checkpoint %s cannot be read (%s).", directory / str(candidate), str(error)[:200])
    tried = ", ".join(map(str, steps if step is None else [step])) or "none; train first"
    raise UserError(f"{directory}: has no readable checkpoint (tried {tried}).")


def _networks(step: int, state: dict[str, Any]) -> Networks:
    # Networks without weights leave no trace.
    return Networks(step, {"predictor": {}} | state["params"], state["batch_stats"])
