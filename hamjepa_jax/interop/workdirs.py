"""Workdirs written and read without the data of the run, for weights from and to other formats."""

import pathlib
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from flax import traverse_util
from jax.sharding import SingleDeviceSharding

from hamjepa_jax import build, files
from hamjepa_jax.data import ShapeSplit, Source
from hamjepa_jax.errors import UserError
from hamjepa_jax.run.restore import check_networks, open_checkpoints, saved_networks
from hamjepa_jax.run.setup import set_up
from hamjepa_jax.run.workdir import CONFIG_FILE, ENVIRONMENT_FILE, check_path, environment, record_of, saved_config
from hamjepa_jax.training.state import TrainState

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
    """An untrained state of step 0 on one device, made without opening any images.

    Raises:
      UserError: for a config that cannot work.
    """
    config, size = config.copy_and_resolve_references(), config.data.image_size
    # Durations and devices have no part in the state; these suit any number of images and one device.
    config.optimizer.warmup, config.log.every, config.checkpoint.every = "0 steps", "1 steps", "1 steps"
    config.evaluate.every, config.train.steps_per_dispatch, config.mesh.fsdp = "", 1, 1
    source = Source("no images", ShapeSplit(1000 * config.train.batch_size, size, size), ShapeSplit(1, size, size))
    return set_up(config, source=source, devices=jax.devices()[:1], training=False).init()


def with_weights(state: TrainState, networks: Networks) -> TrainState:
    """The state with the networks' weights in place of its own.

    Raises:
      ValueError: if they are weights of other networks.
    """

    def filled(own: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        # A network without weights is an empty node in `own`, and may be missing in `given`.
        whole, given = traverse_util.flatten_dict(own, keep_empty_nodes=True), traverse_util.flatten_dict(given)
        shapes = [
            {name: np.shape(x) for name, x in tree.items()} for tree in (traverse_util.flatten_dict(own), given)
        ]
        if shapes[0] != shapes[1]:
            raise ValueError("the weights are those of other networks.")
        return traverse_util.unflatten_dict(whole | given)

    return begun_with(state, filled(state.params, networks.params), filled(state.batch_stats, networks.batch_stats))


def begun_with(state: TrainState, params: dict[str, Any], batch_stats: dict[str, Any]) -> TrainState:
    """A first state with other weights of the networks; a teacher begins as a copy of them."""
    teacher = state.teacher
    if teacher is not None:
        teacher = {"params": {name: params[name] for name in teacher["params"]}, "batch_stats": batch_stats}
    return state.replace(params=params, batch_stats=batch_stats, teacher=teacher)


def write_workdir(out: str | pathlib.Path, config: ConfigDict, state: TrainState, origin: dict[str, Any]) -> None:
    """Makes a workdir that can be evaluated and trained on. The first training decides which images are its own.

    Args:
      out: folder without a run, made if missing.
      config: of the run.
      state: saved as the only checkpoint.
      origin: of the weights; kept in config.json.

    Raises:
      UserError: if there is a run in the folder, or it cannot be written.
    """
    out = files.user_path(out, "--out")
    check_path(out, "--out")
    out = files.make_folder(out, "--out")
    if (out / CONFIG_FILE).exists():
        raise UserError(f"--out {out}: there is a run in it; choose another folder.")
    with open_checkpoints(config, out, read_only=False) as checkpoints:
        checkpoints.save(int(state.step), state, {})
        checkpoints.wait()
    files.write_json(out / ENVIRONMENT_FILE, environment())
    files.write_json(out / CONFIG_FILE, record_of(config, None, origin=origin))


def read_networks(workdir: str | pathlib.Path, step: int | None = None) -> Networks:
    """The networks' weights of a checkpoint, the teacher's where the run evaluates it, on one device.

    The run's objective and devices do not matter.

    Args:
      workdir: of a run.
      step: the checkpoint; the newest readable one if None.

    Raises:
      UserError: if the folder holds no run or no such checkpoint, or none can be read.
    """
    workdir = files.user_path(workdir, "workdir")
    config = saved_config(workdir)
    with open_checkpoints(config, workdir) as checkpoints:
        saved = saved_networks(checkpoints, SingleDeviceSharding(jax.devices()[0]), step)
    state = TrainState(saved["step"], saved["params"], saved["batch_stats"], None, None, saved["teacher"])
    networks = Networks(int(state.step), **state.evaluated(teacher=config.evaluate.teacher))
    check_config(workdir / "checkpoints", config, networks)
    return networks


def check_config(where: pathlib.Path, config: ConfigDict, networks: Networks) -> None:
    """Refuses a damaged config, and weights of other networks than it describes.

    Raises:
      UserError: naming the field, or where the weights were read from and the network.
    """
    build.check(config, training=False)
    params, _ = jax.eval_shape(build.build_model(config).init, jax.random.key(0))
    check_networks(where, params, networks.params)
