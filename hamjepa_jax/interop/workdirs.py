"""Workdirs written and read without the data of the run: what comes in from other formats, and what goes out."""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
from jax.sharding import SingleDeviceSharding

from hamjepa_jax import build
from hamjepa_jax import config as config_lib
from hamjepa_jax.errors import UserError
from hamjepa_jax.folders import make_folder
from hamjepa_jax.restore import open_checkpoints, saved_networks
from hamjepa_jax.training.mesh import make_mesh
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.workdir import environment, saved_config

ConfigDict = ml_collections.ConfigDict


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
    out = make_folder(out, "--out")
    if (out / "config.json").exists():
        raise UserError(f"--out {out}: there is a run in it; choose another folder.")
    with open_checkpoints(config, out, read_only=False) as checkpoints:
        checkpoints.save(int(state.step), state, {})
        checkpoints.wait()
    (out / "run.json").write_text(json.dumps(environment(), indent=2))
    record = {"config": json.loads(config.to_json_best_effort()), "data_fingerprint": None, "origin": origin}
    (out / "config.json").write_text(json.dumps(record, indent=2))


def read_networks(workdir: str | pathlib.Path, step: int | None = None) -> Networks:
    """The networks' weights of a checkpoint, on one device, whatever objective and devices they were trained with.

    Args:
      workdir: of a run.
      step: the checkpoint; the newest readable one if None.

    Raises:
      UserError: if the folder holds no run or no such checkpoint, or none can be read.
    """
    workdir = pathlib.Path(workdir)
    with open_checkpoints(saved_config(workdir), workdir) as checkpoints:
        saved = saved_networks(checkpoints, SingleDeviceSharding(jax.devices()[0]), step)
    return Networks(int(saved["step"]), saved["params"], saved["batch_stats"])
