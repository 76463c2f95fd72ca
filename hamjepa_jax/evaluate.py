"""From weights to metrics.json, plots and a table: in training, at its end, and for existing workdirs.

`python -m hamjepa_jax.evaluate WORKDIR …` is in `evaluate_cli`.
"""

import dataclasses
import json
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax import build, evaluation, report
from hamjepa_jax.data import BrokenImages, Source, Split, eval_batches, gather, is_encoded, spread
from hamjepa_jax.geometry import geometry
from hamjepa_jax.restore import load_run
from hamjepa_jax.training import processes
from hamjepa_jax.training.state import TrainState
from hamjepa_jax.training.writer import METRICS_LOG

Array = jax.Array
ConfigDict = ml_collections.ConfigDict
METRICS_FILE = "metrics.json"
SUMMARY_FILE = "summary.json"
TABLE_FILE = "table.txt"
# Raw pixels are compared at no more than this side: at 224 pixels an image would have 150,528 features.
LARGEST_PIXELS = 32
FLOW_STATES, FLOW_APPLICATIONS = 512, 50
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """What can be asked of an evaluation beyond the protocol in config.evaluate.

    Attributes:
      readouts: which of q, p, qp or z; all if None.
      vote: of the kNN, "majority" or "softmax".
      temperature: of the softmax vote.
      shots: labelled training examples a class; all if None.
      views: whether alignment and uniformity of two random views of the test images are measured.
      flow_jacobians: at how many test states the flow's structure is measured; 0 for not at all.
      metric: what H the readouts of H^{1/2}z are evaluated for as well, see `geometry.geometry`; or None.
    """

    readouts: Sequence[str] | None = None
    vote: str = "majority"
    temperature: float = 0.07
    shots: int | None = None
    views: bool = False
    flow_jacobians: int = 0
    metric: str | None = None


class Evaluator:
    """Evaluates weights of one model on one source of images.

    Training images that cannot be decoded are named and left out, up to the share that training puts up with
    (data.max_broken_share); a broken test image ends the evaluation.
    """

    def __init__(
        self,
        config: ConfigDict,
        model: build.Model,
        source: Source,
        mesh: Mesh,
        *,
        train_images: Array | None = None,
        options: Options = Options(),
    ):
        """Nothing is computed yet.

        Args:
          config: of the run; its evaluation settings count.
          model: the networks whose weights are given to the methods.
          source: images to evaluate on; need not be those of the training.
          mesh: devices to spread the work over.
          train_images: those of source.train where a `DeviceStore` already has them; the test images are then kept
            on the devices too, if data.memory_budget_gb allows, so that no evaluation moves images from the host.
          options: see there.
        """
        self._config, self._model, self._source, self._mesh = config, model, source, mesh
        self._options = options
        self._split = config.encoder.split_qp
        self._held = train_images, _held_beside(train_images, source.test, config, mesh)
        self._broken = BrokenImages(len(source.train), config.data.max_broken_share, "the evaluation leaves out")
        transform = build.eval_transform(_as_they_are(config) if is_encoded(source.train) else config)

        def images(v, x):  # x: images, or the positions of a batch among those on the devices
            return transform(gather(v["images"], x, mesh) if "images" in v else x)

        self._encode = lambda v, x: model.features(v["params"], v["batch_stats"], images(v, x))
        views = build.build_views(config, mesh)

        def view(v, x):  # v["number"] is traced: one program serves both views.
            seen = views(v["images"], x, jnp.int32(0))[0]
            return jax.lax.dynamic_index_in_dim(seen, v["number"], axis=1, keepdims=False)

        self._encode_view = lambda v, x: model.features(v["params"], v["batch_stats"], view(v, x))
        self._pixels = lambda v, x: _flat(evaluation.area_downsample(images(v, x), LARGEST_PIXELS))

    def in_training(self, features: Sequence[np.ndarray]) -> dict[str, float]:
        """kNN and geometry of every readout, without the probe; keys as in `evaluation.protocol`.

        Args:
          features: of `features(state)`.
        """
        return self._measure(*features, split=self._split, names=None, probe=None)

    def at_the_end(
        self,
        state: TrainState,
        init: Callable[[], TrainState],
        *,
        epoch: int | None = None,
        features: Sequence[np.ndarray] | None = None,
    ) -> tuple[dict, dict]:
        """The whole of METHOD's evaluation for the weights and what config.evaluate.references names.

        Args:
          state: the trained weights.
          init: makes the untrained weights, if they are asked for.
          epoch: the one that the weights were last trained in, counted from 1, for what depends on it: the flow and
            a trained H; the last of the run if None.
          features: of `features(state)`, where they are known already.

        Returns:
          ({"trained": metrics, "transformed": …, "untrained": …, "pixels" or "pixels_32px": …}, what the trained
          readouts' four-panel figures show); of the kinds of features those that were asked for.
        """
        references, probe = self._config.evaluate.references, probe_settings(self._config)
        states = dict(split=self._split, names=self._options.readouts, probe=probe)
        trained = self.features(state) if features is None else features
        views = self._two_views(state) if self._options.views else None
        results = {"trained": self._measure(*trained, **states, views=views)}
        if self._options.flow_jacobians:
            results["trained"] |= self._flow(state, trained[1], epoch or self._config.train.epochs)
        if self._options.metric is not None:
            transform = geometry(self._config, self._options.metric, state, epoch or self._config.train.epochs)
            moved = [_in_batches(transform, z, self._config.evaluate.batch_size) for z in trained]
            results["transformed"] = self._measure(*moved, **states)
        if "untrained" in references:
            results["untrained"] = self._measure(*self.features(init()), **states)
        if "pixels" in references:
            pixels = self._of_all(self._pixels, {})
            shrunk = self._config.data.image_size > LARGEST_PIXELS
            name = f"pixels_{LARGEST_PIXELS}px" if shrunk else "pixels"
            results[name] = self._measure(*pixels, split=False, names=None, probe=probe)
        summary = evaluation.feature_summary(
            trained[1],
            results["trained"],
            split=self._split,
            names=self._options.readouts,
            seed=self._config.seed,
        )
        return results, summary

    def features(self, state: TrainState) -> list[np.ndarray]:
        """States of the training and of the test images, [n, K] and [m, K] float32; labels: `train_labels`."""
        return self._of_all(self._encode, _variables(state))

    @property
    def train_labels(self) -> np.ndarray:
        """[n] int32, of the training images whose states `features` has returned."""
        return np.delete(self._source.train.labels, self._broken.indices)

    def _of_all(self, apply_fn: Callable, variables: dict[str, Any]) -> list[np.ndarray]:
        """What `apply_fn` makes of all training images that can be decoded, and of all test images."""
        results = []
        for split, held in zip((self._source.train, self._source.test), self._held, strict=True):
            if held is not None:
                x, given = np.arange(len(split)), variables | {"images": held}
            else:
                x, given = self._decoded(split) if is_encoded(split) else split.images, variables
            results.append(self._extract(apply_fn, x, given))
        train, test = results
        return [np.delete(train, self._broken.indices, axis=0), test]

    def _decoded(self, split: Split) -> Iterator[np.ndarray]:
        c = self._config.data
        return eval_batches(
            split,
            resize=c.eval_resize,
            size=c.image_size,
            batch_size=self._config.evaluate.batch_size,
            num_threads=min(16, os.cpu_count() or 1),
            on_broken=(lambda met: self._broken.report([met])) if split is self._source.train else None,
        )

    def _two_views(self, state: TrainState) -> tuple[np.ndarray, np.ndarray]:
        """States of two random global views of the test images: those of epoch 0, in training's distribution."""
        held = spread(self._source.test.images, self._mesh) if self._held[1] is None else self._held[1]
        variables = _variables(state) | {"images": held}
        rows = np.arange(len(self._source.test))
        return tuple(
            self._extract(self._encode_view, rows, variables | {"number": jnp.int32(number)}) for number in (0, 1)
        )

    def _flow(self, state: TrainState, test_z: np.ndarray, epoch: int) -> dict[str, float]:
        from hamjepa_jax.physics import learned_flow_measurements  # draws figures too: slow to import

        predictor, params = self._model.predictor, state.params["predictor"]
        has_energy = predictor.energy is not None
        scale, steps = build.residual_scale(self._config)(epoch), build.horizon(self._config)
        taken = None if steps is None else steps(epoch)
        measured = learned_flow_measurements(
            lambda z, direction: predictor.flow(params, z, direction, scale, taken),
            # A map without an energy has none that could drift; some function of the state is needed all the same.
            (lambda z: predictor.energy(params, z, scale)) if has_energy else lambda z: (z * z).sum(axis=-1),
            test_z[:FLOW_STATES],
            num_applications=FLOW_APPLICATIONS,
            num_jacobians=self._options.flow_jacobians,
        )
        return evaluation.flow_metrics(measured, has_energy=has_energy)

    def _extract(self, apply_fn: Callable, x: Any, variables: dict[str, Any]) -> np.ndarray:
        size = self._config.evaluate.batch_size
        return evaluation.extract(apply_fn, x, batch_size=size, variables=variables, mesh=self._mesh)

    def _measure(
        self,
        train_z: np.ndarray,
        test_z: np.ndarray,
        *,
        split: bool,
        names: Sequence[str] | None,
        probe: dict | None,
        views: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> dict:
        options = self._options
        return evaluation.evaluate_features(
            train_z,
            self.train_labels,
            test_z,
            self._source.test.labels,
            num_classes=len(self._source.train.class_names),
            split=split,
            names=names,
            ks=self._config.evaluate.ks,
            probe=probe,
            vote=options.vote,
            temperature=options.temperature,
            shots=options.shots,
            views=views,
            seed=self._config.seed,
            mesh=self._mesh,
        )


def probe_settings(config: ConfigDict) -> dict | None:
    """The probe of config.evaluate as `evaluation.evaluate_features` takes it; None if it is turned off."""
    probe = config.evaluate.probe
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
    (workdir / SUMMARY_FILE).write_text(json.dumps(summary))
    table = report.comparison_table(report.rows_of(results))
    (workdir / TABLE_FILE).write_text(table + "\n")
    plots = workdir / "plots"
    plots.mkdir(exist_ok=True)
    report.summary_panels(summary, plots / "readouts.png")
    if (workdir / METRICS_LOG).exists():  # A run that came in from elsewhere has no history.
        report.learning_curve(report.read_history(workdir / METRICS_LOG), plots / "learning_curve.png")
    # Last, and in one go: where there is a metrics.json, everything is there.
    temporary = workdir / f"{METRICS_FILE}.tmp"
    temporary.write_text(json.dumps({"step": step, **results}, indent=2))
    temporary.replace(workdir / METRICS_FILE)
    return table


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
    workdir = pathlib.Path(workdir)
    run = load_run(workdir, step=step, config=config)
    results, summary = Evaluator(run.config, run.model, run.source, run.mesh).at_the_end(run.state, run.init)
    step = int(run.state.step)
    if processes.is_first():
        table = write_results(workdir, step, results, summary)
        log.info("step %d of %s:\n%s", step, workdir, table)
    processes.wait_for_all("the results to be written")
    return {"step": step, **results}


def _variables(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _flat(images: Array) -> Array:
    return images.reshape(images.shape[0], -1)


def _in_batches(function: Callable[[Array], Array], x: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([np.asarray(function(x[start : start + size])) for start in range(0, len(x), size)])


def _held_beside(train_images: Array | None, test: Split, config: ConfigDict, mesh: Mesh) -> Array | None:
    """The test images on the devices too, where the training images are and the budget allows."""
    if train_images is None or is_encoded(test):
        return None
    share = (train_images.nbytes + test.images.nbytes) / mesh.size / 1e9
    return spread(test.images, mesh) if share <= config.data.memory_budget_gb else None


def _as_they_are(config: ConfigDict) -> ConfigDict:
    """The config for images that were resized and cut when they were decoded."""
    config = config.copy_and_resolve_references()
    config.data.eval_resize = None
    return config


if __name__ == "__main__":
    # Under its own name, so that this module is not imported a second time as __main__.
    from hamjepa_jax import command_line, evaluate_cli

    command_line.log_to_terminal()
    sys.exit(evaluate_cli.main())
