"""A run out of its workdir: config, networks, weights and data, for whoever looks at a trained model."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax import build, evaluation
from hamjepa_jax import config as config_lib
from hamjepa_jax.data import Source, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.training.checkpoint import Checkpoints
from hamjepa_jax.training.mesh import make_mesh, replicated, state_sharding
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.workdir import saved_config

Array = jax.Array
ConfigDict = ml_collections.ConfigDict


class Run(NamedTuple):
    """Attributes:
    config: of the run.
    model: its networks as pure functions.
    state: weights and statistics of the checkpoint, replicated over `mesh`, without what only training needs.
    source: the images it was trained and is tested on.
    mesh: all devices.
    init: makes the untrained state that the run began with.
    steps_per_epoch: optimiser steps in an epoch.
    """

    config: ConfigDict
    model: build.Model
    state: TrainState
    source: Source
    mesh: Mesh
    init: Callable[[], TrainState]
    steps_per_epoch: int


def load_run(
    workdir: str | pathlib.Path,
    *,
    step: int | None = None,
    source: str | None = None,
    config: ConfigDict | None = None,
) -> Run:
    """Loads a trained run.

    Args:
      workdir: of the run.
      step: the checkpoint; the newest readable one if None.
      source: where its images are now, as config.data.source; as they were if None.
      config: to use in place of the saved one, for example with other evaluation settings.

    Raises:
      UserError: if the folder holds no run or no such checkpoint, or the data cannot be read.
    """
    workdir, mesh = pathlib.Path(workdir), make_mesh()
    config = (saved_config(workdir) if config is None else config).copy_and_resolve_references()
    if source is not None:
        config.data.source = source
    config.mesh.data, config.mesh.fsdp = None, 1  # Looked at whole, on any number of devices.
    config_lib.validate(config, num_devices=1)
    images = open_source(config.data.source, loader=config.data.loader)
    config_lib.validate_durations(config, len(images.train))
    model = build.build_model(config)
    training = build.build_training(config, model, len(images.train), mesh)
    abstract, init = initial_state(config, training, mesh)
    with open_checkpoints(config, workdir) as checkpoints:
        state = restore_weights(checkpoints, abstract, mesh, step)
    return Run(config, model, state, images, mesh, init, training.steps_per_epoch)


def restore_weights(checkpoints: Checkpoints, like: TrainState, mesh: Mesh, step: int | None = None) -> TrainState:
    """Weights and statistics of a checkpoint, whatever objective and optimiser the run was trained with.

    Args:
      checkpoints: of the run.
      like: state of jax.ShapeDtypeStruct leaves, whose networks are expected.
      mesh: where to put the arrays, whole on every device.
      step: the checkpoint; the newest readable one if None.

    Returns:
      The state; its opt_state and draw are None.

    Raises:
      UserError: if there is no such checkpoint, or its networks are others.
    """
    saved = saved_networks(checkpoints, replicated(mesh), step)
    for name in ("encoder", "predictor", "projector"):
        expected, found = (
            jax.tree.map(lambda x: x.shape, tree.get(name)) for tree in (like.params, saved["params"])
        )
        if expected != found:
            raise UserError(
                f"{checkpoints.directory}: the {name} saved there is not the config's; evaluate with the config "
                f"it was trained with."
            )
    return TrainState(saved["step"], saved["params"], saved["batch_stats"], opt_state=None, draw=None)


def saved_networks(
    checkpoints: Checkpoints, sharding: jax.sharding.Sharding, step: int | None = None
) -> dict[str, Any]:
    """The fields step, params and batch_stats of a checkpoint, the newest readable one if `step` is None.

    Raises:
      UserError: if there is no such checkpoint, or none can be read.
    """
    saved = checkpoints.restore_as_saved(sharding, step)
    if saved is None:
        raise UserError(f"{checkpoints.directory}: has no checkpoint yet; train first.")
    return saved | {"params": {"predictor": {}} | saved["params"]}  # Networks without weights leave no trace.


def trained_flow(run: Run) -> tuple[Callable[[Array, int], Array], Callable[[Array], Array]]:
    """The flow(z, direction) and energy(z) that the run had learned by its checkpoint, for z [..., 2d].

    Raises:
      UserError: if the run learns no flow of (q, p).
    """
    config, predictor = run.config, run.model.predictor
    params = jax.device_get(run.state.params["predictor"])  # For states on any device.
    if config.objective.name != "hamjepa":
        raise UserError(f"objective.name {config.objective.name!r}: the run learned no flow; give a 'hamjepa' run.")
    epoch = max(int(run.state.step) - 1, 0) // run.steps_per_epoch + 1
    scale, horizon = build.residual_scale(config)(epoch), build.horizon(config)
    steps = None if horizon is None else horizon(epoch)

    def energy(z: Array) -> Array:
        if predictor.energy is None:
            raise UserError(f"predictor.kind {config.predictor.kind!r}: it has no energy.")
        return predictor.energy(params, z, scale)

    return lambda z, direction: predictor.flow(params, z, direction, scale, steps), energy


def heldout_states(run: Run, num: int) -> np.ndarray:
    """States [n, k] of the first `num` (or all) test images, float32, encoded as in evaluation."""
    images = build.eval_transform(run.config)
    return evaluation.extract(
        lambda v, x: run.model.features(v["params"], v["batch_stats"], images(x)),
        run.source.test.images[:num],
        batch_size=run.config.evaluate.batch_size,
        variables={"params": run.state.params, "batch_stats": run.state.batch_stats},
        mesh=run.mesh,
    )


def initial_state(
    config: ConfigDict, training: build.Training, mesh: Mesh
) -> tuple[TrainState, Callable[[], TrainState]]:
    """(the state's shapes, types and shardings, what makes the state a run begins with)."""

    def init() -> TrainState:
        return training.init(build.init_key(config))

    abstract = abstract_state(init, mesh)
    return abstract, jax.jit(init, out_shardings=jax.tree.map(lambda x: x.sharding, abstract))


def abstract_state(init: Callable[[], TrainState], mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of a training state, without computing one."""
    shapes = jax.eval_shape(init)
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        state_sharding(mesh, shapes),
    )


def open_checkpoints(config: ConfigDict, workdir: pathlib.Path, *, read_only: bool = True) -> Checkpoints:
    """The checkpoints of the run in `workdir`, by the rules of config.checkpoint; only training writes them.

    Raises:
      UserError: if there are none to read, or the folder cannot be written.
    """
    if read_only and not (workdir / "checkpoints").is_dir():  # Opening them would make the folder.
        raise UserError(f"--workdir {workdir}: has no checkpoint yet; train first.")
    c = config.checkpoint
    return Checkpoints(
        workdir / "checkpoints",
        keep_latest=c.keep_latest,
        keep_best=c.keep_best,
        best_metric=c.best_metric,
        read_only=read_only,
    )
