"""From weights to metrics.json, plots and a table: in training, at its end, and for an existing workdir."""

import json
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax import build, evaluation, report
from hamjepa_jax import config as config_lib
from hamjepa_jax.data import Source, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.training.checkpoint import Checkpoints
from hamjepa_jax.training.mesh import make_mesh, replicated
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.writer import METRICS_LOG

ConfigDict = ml_collections.ConfigDict
METRICS_FILE = "metrics.json"
SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.txt"
log = logging.getLogger(__name__)


class Evaluator:
    """Evaluates weights of one model on one source of images."""

    def __init__(self, config: ConfigDict, model: build.Model, source: Source, mesh: Mesh):
        self._config, self._source, self._mesh = config, source, mesh
        self._split = config.encoder.split_qp
        images = build.eval_transform(config)
        self._encode = lambda v, x: model.features(v["params"], v["batch_stats"], images(x))
        self._pixels = lambda x: images(x).reshape(x.shape[0], -1)

    def in_training(self, state: TrainState) -> dict[str, float]:
        """kNN and geometry of every readout, without the probe; keys as in `evaluation.protocol`."""
        return self._measure(*self._states(state), split=self._split, probe=None)

    def at_the_end(self, state: TrainState, init: Callable[[], TrainState]) -> tuple[dict, dict]:
        """The whole of METHOD's evaluation for the weights and what config.evaluate.references names.

        Args:
          state: the trained weights.
          init: makes the untrained weights, if they are asked for.

        Returns:
          ({"trained": metrics, "untrained": …, "pixels": …}, what the trained readouts' four-panel figures show).
        """
        references, probe = self._config.evaluate.references, self._probe_settings()
        trained = self._states(state)
        results = {"trained": self._measure(*trained, split=self._split, probe=probe)}
        if "untrained" in references:
            results["untrained"] = self._measure(*self._states(init()), split=self._split, probe=probe)
        if "pixels" in references:
            pixels = [self._extract(self._pixels, split) for split in (self._source.train, self._source.test)]
            results["pixels"] = self._measure(*pixels, split=False, probe=probe)
        summary = evaluation.feature_summary(
            trained[1], results["trained"], split=self._split, seed=self._config.seed
        )
        return results, summary

    def _states(self, state: TrainState) -> list[np.ndarray]:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        return [self._extract(self._encode, split, variables) for split in (self._source.train, self._source.test)]

    def _extract(self, apply_fn: Callable, split: Any, variables: Any = None) -> np.ndarray:
        size = self._config.evaluate.batch_size
        return evaluation.extract(apply_fn, split.images, batch_size=size, variables=variables, mesh=self._mesh)

    def _measure(self, train_z: np.ndarray, test_z: np.ndarray, *, split: bool, probe: dict | None) -> dict:
        return evaluation.evaluate_features(
            train_z,
            self._source.train.labels,
            test_z,
            self._source.test.labels,
            num_classes=len(self._source.train.class_names),
            split=split,
            ks=self._config.evaluate.ks,
            probe=probe,
            seed=self._config.seed,
            mesh=self._mesh,
        )

    def _probe_settings(self) -> dict | None:
        probe = self._config.evaluate.probe
        if probe.epochs == 0:
            return None
        return dict(
            epochs=probe.epochs,
            batch_size=probe.batch_size,
            learning_rate=probe.learning_rates,
            weight_decay=probe.weight_decay,
        )


def write_results(workdir: pathlib.Path, step: int, results: dict, summary: dict) -> str:
    """Writes metrics.json, summary.json, table.txt and the plots; returns the table and where things are."""
    (workdir / METRICS_FILE).write_text(json.dumps({"step": step, **results}, indent=2))
    (workdir / SUMMARY_FILE).write_text(json.dumps(summary))
    table = report.comparison_table(_rows(results))
    (workdir / TABLE_FILE).write_text(table + "\n")
    plots = workdir / "plots"
    plots.mkdir(exist_ok=True)
    report.summary_panels(summary, plots / "readouts.png")
    report.learning_curve(report.read_history(workdir / METRICS_LOG), plots / "learning_curve.png")
    return table


def _rows(results: dict[str, dict]) -> dict[str, dict]:
    """Rows of the table: one for each readout of each kind of features."""
    names = {"trained": "", "untrained": "untrained ", "pixels": ""}
    readouts = {"q": "q", "p": "p", "qp": "(q,p)", "z": "z"}
    rows = {}
    for kind, metrics in results.items():
        for readout, shown in readouts.items():
            selected = report.select(metrics, readout)
            if selected:
                rows["raw pixels" if kind == "pixels" else names[kind] + shown] = selected
    return rows


def where_results_are(workdir: pathlib.Path) -> str:
    """The paths that a reader of a finished run wants."""
    places = {
        "numbers": METRICS_FILE,
        "plots": "plots/",
        "log": METRICS_LOG,
        "tensorboard": "tensorboard/",
        "checkpoints": "checkpoints/",
    }
    return "\n".join(
        f"{name:<12} {workdir / place}" for name, place in places.items() if (workdir / place).exists()
    )


def evaluate(config: ConfigDict, workdir: str | pathlib.Path, *, step: int | None = None) -> dict:
    """Evaluates a checkpoint of an existing run and writes its results into the workdir.

    Args:
      config: of the run, see `training.workdir.saved_config`.
      workdir: of the run.
      step: the checkpoint; the newest readable one if None.

    Returns:
      {"step", "trained": metrics, …}, see `Evaluator.at_the_end`.

    Raises:
      UserError: if there is no such checkpoint or the data cannot be read.
    """
    workdir, mesh = pathlib.Path(workdir), make_mesh()
    config_lib.validate(config, mesh.size)
    source = open_source(config.data.source)
    config_lib.validate_durations(config, len(source.train))
    model = build.build_model(config)
    training = build.build_training(config, model, len(source.train), mesh)
    init = jax.jit(lambda: training.init(build.init_key(config)), out_shardings=replicated(mesh))
    checkpoints = open_checkpoints(config, workdir)
    state = checkpoints.restore(abstract_state(init, mesh), step)
    checkpoints.close()
    if state is None:
        raise UserError(f"--workdir {workdir}: has no checkpoint yet; train first.")
    results, summary = Evaluator(config, model, source, mesh).at_the_end(state, init)
    step = int(state.step)
    table = write_results(workdir, step, results, summary)
    log.info("step %d of %s:\n%s", step, workdir, table)
    return {"step": step, **results}


def abstract_state(init: Callable[[], TrainState], mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of a training state, without computing one."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), jax.eval_shape(init)
    )


def open_checkpoints(config: ConfigDict, workdir: pathlib.Path) -> Checkpoints:
    c = config.checkpoint
    return Checkpoints(
        workdir / "checkpoints", keep_latest=c.keep_latest, keep_best=c.keep_best, best_metric=c.best_metric
    )
