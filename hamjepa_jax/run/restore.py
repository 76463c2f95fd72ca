"""A run restored from its workdir: config, networks, weights and data of a trained model."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax import build, evaluation, parts
from hamjepa_jax.config import epoch_at
from hamjepa_jax.data import Source
from hamjepa_jax.errors import UserError
from hamjepa_jax.run.setup import set_up
from hamjepa_jax.run.workdir import WEIGHTS_FILE, saved_config
from hamjepa_jax.training.checkpoint import Checkpoints
from hamjepa_jax.training.mesh import replicated
from hamjepa_jax.training.state import TrainState

Array = jax.Array
ConfigDict = ml_collections.ConfigDict


class Run(NamedTuple):
    """Attributes:
    config: of the run.
    model: its networks as pure functions.
    state: weights and statistics of the checkpoint, replicated over `mesh`; its other fields are None.
    source: the images it was trained and is tested on.
    mesh: all devices.
    abstract: shapes, types and shardings of the whole training state.
    init: makes the untrained state that the run began with.
    steps_per_epoch: optimiser steps in an epoch.
    """

    config: ConfigDict
    model: build.Model
    state: TrainState
    source: Source
    mesh: Mesh
    abstract: TrainState
    init: Callable[[], TrainState]
    steps_per_epoch: int

    def epoch_at(self, step: int) -> int:
        """The epoch, counted from 1, that `step` steps of training end in."""
        return epoch_at(step, self.steps_per_epoch)


def load_run(
    workdir: str | pathlib.Path,
    *,
    step: int | None = None,
    source: str | None = None,
    config: ConfigDict | None = None,
    images: Source | None = None,
) -> Run:
    """Loads a trained run, on any number of devices.

    Args:
      workdir: of the run.
      step: the checkpoint; the newest readable one if None.
      source: where its images are now, as config.data.source; None if they were not moved.
      config: to use in place of the saved one, for example with other evaluation settings.
      images: in place of those it was trained on, which are then not opened; a `ShapeSplit` of as many will do.

    Raises:
      UserError: if the folder holds no run or no such checkpoint, or the data cannot be read.
    """
    workdir = pathlib.Path(workdir)
    config = (saved_config(workdir) if config is None else config).copy_and_resolve_references()
    if source is not None:
        config.data.source = source
    setup = set_up(config, source=images, training=False)
    with open_checkpoints(config, workdir) as checkpoints:
        state = restore_weights(checkpoints, setup.abstract, setup.mesh, step)
    return Run(
        setup.config,
        setup.model,
        state,
        setup.source,
        setup.mesh,
        setup.abstract,
        setup.init,
        setup.training.steps_per_epoch,
    )


def restore_weights(checkpoints: Checkpoints, like: TrainState, mesh: Mesh, step: int | None = None) -> TrainState:
    """Weights and statistics of a checkpoint, whatever objective and optimiser the run was trained with.

    Args:
      checkpoints: of the run.
      like: state of jax.ShapeDtypeStruct leaves, whose networks are expected.
      mesh: where to put the arrays, whole on every device.
      step: the checkpoint; the newest readable one if None.

    Returns:
      The state; its opt_state, draw and carried are None.

    Raises:
      UserError: if there is no such checkpoint, or its networks are others.
    """
    saved = saved_networks(checkpoints, replicated(mesh), step)
    check_networks(checkpoints.directory, like.params, saved["params"])
    return TrainState(
        saved["step"], saved["params"], saved["batch_stats"], opt_state=None, draw=None, teacher=saved["teacher"]
    )


def check_networks(where: pathlib.Path, like: dict[str, Any], params: dict[str, Any]) -> None:
    """Refuses weights of other networks than the config's.

    Args:
      where: they were read from, for the message.
      like: weights of the config's networks, as arrays or jax.ShapeDtypeStruct.
      params: those that were read.

    Raises:
      UserError: naming the network.
    """
    for name in ("encoder", "predictor", "projector"):
        expected, found = (jax.tree.map(lambda x: x.shape, tree.get(name)) for tree in (like, params))
        if expected != found:
            raise UserError(
                f"{where}: the {name} saved there is not the config's; use the config that it was trained with."
            )


def saved_networks(
    checkpoints: Checkpoints, sharding: jax.sharding.Sharding, step: int | None = None
) -> dict[str, Any]:
    """The fields step, params, batch_stats and teacher of a checkpoint, the newest readable one if `step` is None.

    Raises:
      UserError: if there is no such checkpoint, or none can be read.
    """
    saved = checkpoints.restore_as_saved(sharding, step)
    if saved is None:
        raise UserError(f"{checkpoints.directory}: has no checkpoint yet; train first.")
    return with_empty_networks(saved)


def with_empty_networks(saved: dict[str, Any]) -> dict[str, Any]:
    """The same with the networks without weights or statistics: these leave no trace where they are saved."""
    params = {"predictor": {}} | saved["params"]
    batch_stats, teacher = {"encoder": {}} | saved.get("batch_stats", {}), saved.get("teacher")
    if teacher is not None:
        teacher = {"params": teacher["params"], "batch_stats": {"encoder": {}} | teacher.get("batch_stats", {})}
    return saved | {"params": params, "batch_stats": batch_stats, "teacher": teacher}


def trained_flow(run: Run) -> tuple[Callable[[Array, int], Array], Callable[[Array], Array] | None]:
    """The flow(z, direction) and energy(z) that the run had learned by its checkpoint, for z [..., 2d].

    The energy is None where the predictor has none.

    Raises:
      UserError: if the run learns no flow of (q, p).
    """
    config = run.config
    if not parts.objectives[config.objective.name].about["uses_predictor"]:
        raise UserError(f"objective.name {config.objective.name!r}: the run learned no flow; give a 'hamjepa' run.")
    epoch = run.epoch_at(int(run.state.step))
    # For states on any device.
    return flow_of(config, run.model.predictor, jax.device_get(run.state.params["predictor"]), epoch)


def learns_flow(config: ConfigDict) -> bool:
    """Whether the run's objective trains a predictor that is more than the identity."""
    return parts.objectives[config.objective.name].about["uses_predictor"] and config.predictor.kind != "identity"


def flow_of(
    config: ConfigDict, predictor: Any, params: Any, epoch: int
) -> tuple[Callable[[Array, int], Array], Callable[[Array], Array] | None]:
    """flow(z, direction) and energy(z) of a predictor as its schedules have it in an epoch, counted from 1."""
    scale, horizon = build.residual_scale(config)(epoch), build.horizon(config)
    steps = None if horizon is None else horizon(epoch)

    def flow(z: Array, direction: int) -> Array:
        return predictor.flow(params, z, direction, scale, steps)

    return flow, predictor.energy and (lambda z: predictor.energy(params, z, scale))


def heldout_states(run: Run, num: int) -> np.ndarray:
    """States [n, k] of the first `num` (or all) test images, float32, encoded as in evaluation."""
    images = build.eval_transform(run.config)
    return evaluation.extract(
        lambda v, x: run.model.features(v["params"], v["batch_stats"], images(x)),
        run.source.test.images[:num],
        batch_size=run.config.evaluate.batch_size,
        variables=run.state.evaluated(teacher=run.config.evaluate.teacher),
        mesh=run.mesh,
    )


def open_checkpoints(config: ConfigDict, workdir: pathlib.Path, *, read_only: bool = True) -> Checkpoints:
    """The checkpoints of the run in `workdir`, by the rules of config.checkpoint; only training writes them.

    Raises:
      UserError: if there are none to read, or the folder cannot be written.
    """
    if read_only and not (workdir / "checkpoints").is_dir():  # Opening them would make the folder.
        if (workdir / WEIGHTS_FILE).is_file():
            raise UserError(
                f"{workdir}: is an export, which has no checkpoints; give the workdir of the run that it was made "
                f"from."
            )
        raise UserError(f"--workdir {workdir}: has no checkpoint yet; train first.")
    if (workdir / "checkpoints").exists() and not (workdir / "checkpoints").is_dir():
        raise UserError(f"{workdir / 'checkpoints'}: is no folder; move it away, or choose another workdir.")
    c = config.checkpoint
    return Checkpoints(
        workdir / "checkpoints",
        keep_latest=c.keep_latest,
        keep_best=c.keep_best,
        best_metric=c.best_metric,
        read_only=read_only,
    )
