"""Evaluates weights of one model on one source of images: in training, at its end, and for existing workdirs."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax import build, evaluation, parts, report
from hamjepa_jax.config.default import values_of
from hamjepa_jax.data import (
    BrokenImages,
    Source,
    Split,
    eval_batches,
    gather,
    is_encoded,
    spread,
)
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate.random_views import RandomViews
from hamjepa_jax.evaluate.transform import geometry_map
from hamjepa_jax.evaluation.classifier import top1
from hamjepa_jax.physics import learned_flow_measurements
from hamjepa_jax.run.restore import flow_of
from hamjepa_jax.run.setup import check_clips
from hamjepa_jax.training import processes
from hamjepa_jax.training.state import TrainState

Array = jax.Array
ConfigDict = ml_collections.ConfigDict
# Raw pixels are compared at no more than this side: at 224 pixels an image would have 150,528 features.
LARGEST_PIXELS = 32
FLOW_STATES, FLOW_APPLICATIONS = 512, 50
QUERIES, NEIGHBOURS = 10, 5
LOOKED_AT = 200  # Test images that a gallery is chosen from.


@dataclasses.dataclass(frozen=True)
class Options:
    """Requests to an evaluation beyond the protocol in config.evaluate.

    Attributes:
      readouts: which of q, p, qp or z; all if None.
      vote: of the kNN, "majority" or "softmax".
      temperature: of the softmax vote.
      shots: labelled training examples a class; all if None.
      published_top5: whether the kNN's top-5 is counted as the published numbers do as well.
      views: whether alignment and uniformity of two random views of the test images are measured.
      metric: the H of further readouts H^{1/2}z, see `transform.geometry_map`; None for none.
    """

    readouts: Sequence[str] | None = None
    vote: str = "majority"
    temperature: float = 0.07
    shots: int | None = None
    published_top5: bool = False
    views: bool = False
    metric: str | None = None


class Evaluator:
    """Evaluates weights of one model on one source of images.

    Training images that cannot be decoded are named and left out, up to the share that training tolerates
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
          model: the networks; the methods get their weights.
          source: images to evaluate on; need not be those of the training.
          mesh: devices to spread the work over.
          train_images: those of source.train, if a `DeviceStore` has them already; the test images are then kept
            on the devices too, if data.memory_budget_gb allows, so that no evaluation moves images from the host.
          options: see there.
        """
        self._config, self._model, self._source, self._mesh = config, model, source, mesh
        with_settings = [part.name for part in parts.metrics.parts(config.plugins) if part.settings]
        self._metric_settings = {name: values_of(config, parts.metrics, name)[1] for name in with_settings}
        self._options, self._safe_point = options, lambda: None
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
        self._random_views = RandomViews(config, model, source.test, mesh)
        self._pixels = lambda v, x: _flat(evaluation.area_downsample(images(v, x), LARGEST_PIXELS))

    def in_training(self, features: Sequence[np.ndarray], state: TrainState) -> dict[str, float]:
        """kNN and geometry of every readout, without the probe; keys as in `evaluation.protocol`.

        Args:
          features: of `features(state)`.
          state: the weights, for random views if the config asks for some.
        """
        surrogates = self._surrogates(state)
        measured = self._measure(*features, split=self._split, names=None, probe=None, surrogates=surrogates)
        return measured | self._online_probe(features[1], state)

    @property
    def model(self) -> build.Model:
        """The networks."""
        return self._model

    @property
    def mesh(self) -> Mesh:
        """Devices that the work is spread over."""
        return self._mesh

    @property
    def labelled(self) -> bool:
        """Whether the images have labels; without them kNN and probe are left out."""
        return self._source.labelled

    def at_the_end(
        self,
        state: TrainState,
        init: Callable[[], TrainState],
        *,
        epoch: int,
        features: Sequence[np.ndarray] | None = None,
        safe_point: Callable[[], None] | None = None,
    ) -> tuple[dict, dict]:
        """The paper's whole protocol for the weights and for the references that config.evaluate names.

        Args:
          state: the trained weights.
          init: makes the untrained weights, if they are asked for.
          epoch: the one that the weights were last trained in, counted from 1, for what depends on it: the flow and
            a trained H.
          features: of `features(state)`, where they are known already.
          safe_point: called now and then; may raise to end the evaluation.

        Returns:
          ({"trained": metrics, "transformed": …, "untrained": …, "pixels" or "pixels_32px": …}, what the trained
          readouts' four-panel figures show); only kinds of features that were asked for.
        """
        self._safe_point = safe_point or (lambda: None)
        references = self._config.evaluate.references
        probe = probe_settings(self._config) if self.labelled else None
        states = dict(split=self._split, names=self._options.readouts, probe=probe)
        trained = self.features(state) if features is None else features
        views = self._two_views(state) if self._options.views else None
        surrogates = self._surrogates(state)
        results = {"trained": self._measure(*trained, **states, views=views, surrogates=surrogates)}
        if self._config.evaluate.flow:
            results["trained"] |= self._flow(state, trained[1], epoch)
        if self._options.metric is not None:
            transform = geometry_map(self._config, self._options.metric, state, epoch)
            moved = [in_batches(transform, z, self._config.evaluate.batch_size) for z in trained]
            results["transformed"] = self._measure(*moved, **states)
        if "untrained" in references:
            results["untrained"] = self._measure(*self.features(init()), **states)
        if "pixels" in references:
            shrunk = self._config.data.image_size > LARGEST_PIXELS
            name = f"pixels_{LARGEST_PIXELS}px" if shrunk else "pixels"
            results[name] = self._measure(*self._pixel_features, split=False, names=None, probe=probe)
        summary = evaluation.feature_summary(
            trained[1],
            results["trained"],
            split=self._split,
            names=self._options.readouts,
            seed=self._config.seed,
        )
        return results, summary

    def neighbours(self, features: Sequence[np.ndarray]) -> report.Neighbours:
        """The nearest training images of a test image of each class, by q (or z), and by raw pixels if
        config.evaluate.references names them.

        Args:
          features: of `features(state)`.
        """
        rows = np.arange(min(QUERIES, len(self._source.test)))
        if self.labelled:
            rows = evaluation.first_of_each_class(self._source.test.labels, QUERIES)
        name = "q" if self._split else "z"
        compared = {name: [evaluation.readouts(z, split=self._split)[name] for z in features]}
        if "pixels" in self._config.evaluate.references:
            compared["raw pixels"] = self._pixel_features
        return self._neighbours(compared, rows)

    def gallery(self, features: Sequence[np.ndarray], each: int) -> report.Neighbours:
        """The same by every readout, for test images whose nearest by the first has their class, and that has not.

        Args:
          features: of `features(state)`.
          each: the most of either; without labels, so many in all.
        """
        banks, queried = (evaluation.readouts(z, split=self._split) for z in features)
        compared = {report.READOUT_NAMES[name]: [banks[name], queried[name]] for name in banks}
        rows = np.arange(min(each, len(self._source.test)))
        if self.labelled:
            bank, queries = next(iter(compared.values()))
            looked_at = np.arange(min(LOOKED_AT, len(queries)))
            nearest = evaluation.nearest(bank, queries[looked_at], 1)[:, 0]
            right = self.train_labels[nearest] == self._source.test.labels[looked_at]
            rows = np.concatenate([looked_at[right][:each], looked_at[~right][:each]])
        return self._neighbours(compared, rows)

    def _neighbours(self, compared: dict[str, list[np.ndarray]], rows: np.ndarray) -> report.Neighbours:
        """The nearest training images of the test images at `rows`, by {name: features of both splits}."""
        train, test, by = self._source.train, self._source.test, {}
        for name, (bank, queries) in compared.items():
            nearest = self.kept[evaluation.nearest(bank, queries[rows], NEIGHBOURS)]
            same = train.labels[nearest] == test.labels[rows][:, None]
            by[name] = [
                [
                    report.Neighbour(train.image(int(i)), bool(s) if self.labelled else None)
                    for i, s in zip(*of_query, strict=True)
                ]
                for of_query in zip(nearest, same, strict=True)
            ]
        return report.Neighbours([test.image(int(row)) for row in rows], by)

    def features(self, state: TrainState) -> list[np.ndarray]:
        """States of the training and of the test images, [n, K] and [m, K] float32; labels: `train_labels`.

        Raises:
          UserError: if they are not finite, as those of a diverged run.
        """
        found = self._of_all(self._encode, self._variables(state))
        if not all(np.isfinite(z).all() for z in found):
            raise UserError(
                f"step {int(state.step)}: the encoder's features are not finite, so the run has diverged; try a "
                f"lower optimizer.learning_rate or optimizer.clip_norm=1.0, in another workdir."
            )
        return found

    @property
    def kept(self) -> np.ndarray:
        """[n] positions of the training images whose states `features` has returned."""
        return np.delete(np.arange(len(self._source.train)), self._broken.indices)

    @property
    def train_labels(self) -> np.ndarray:
        """[n] int32, of the training images whose states `features` has returned."""
        return self._source.train.labels[self.kept]

    @functools.cached_property
    def _pixel_features(self) -> list[np.ndarray]:
        """Raw pixels as features, like `features`; the same for every checkpoint."""
        return self._of_all(self._pixels, {})

    def _of_all(self, apply_fn: Callable, variables: dict[str, Any]) -> list[np.ndarray]:
        """`apply_fn` of all training images that can be decoded, and of all test images."""
        results = []
        for split, held in zip((self._source.train, self._source.test), self._held, strict=True):
            if held is not None:
                x, given = np.arange(len(split)), variables | {"images": held}
            else:
                x, given = self._decoded(split) if is_encoded(split) else split.images, variables
            results.append(self._extract(apply_fn, x, given, len(split)))
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
        """States of two random global views of the test images: those of epoch 0, with training's augmentation."""
        held = spread(self._source.test.images, self._mesh) if self._held[1] is None else self._held[1]
        variables = self._variables(state) | {"images": held}
        rows = np.arange(len(self._source.test))
        return tuple(
            self._extract(self._encode_view, rows, variables | {"number": jnp.int32(number)}, len(rows))
            for number in (0, 1)
        )

    def _online_probe(self, test_z: np.ndarray, state: TrainState) -> dict[str, float]:
        """Accuracy on the test images of the classifiers that were trained beside the networks, if any were."""
        if state.probe is None:
            return {}
        labels, classifiers = jnp.asarray(self._source.test.labels), processes.on_host(state.probe["params"])
        return {
            f"{name}/online_probe_top1": float(top1(classifiers[name], x, labels))
            for name, x in evaluation.readouts(test_z, split=self._split).items()
        }

    def _surrogates(self, state: TrainState) -> np.ndarray | None:
        """States of random views of some test images, if config.evaluate.lidar asks for them."""
        if not self._random_views.asked_for:
            return None
        self._safe_point()
        return self._random_views.states(state)

    def _flow(self, state: TrainState, test_z: np.ndarray, epoch: int) -> dict[str, float]:
        params = processes.on_host(state.params["predictor"])  # Devices may share it.
        flow, energy = flow_of(self._config, self._model.predictor, params, epoch)
        measured = learned_flow_measurements(
            flow,
            # Without an energy nothing drifts, but the measurement needs some function of the state.
            energy or (lambda z: (z * z).sum(axis=-1)),
            test_z[:FLOW_STATES],
            num_applications=FLOW_APPLICATIONS,
            num_jacobians=self._config.evaluate.flow,
        )
        return evaluation.flow_metrics(measured, has_energy=energy is not None, plugins=self._config.plugins)

    def _variables(self, state: TrainState) -> dict[str, Any]:
        return state.evaluated(teacher=self._config.evaluate.teacher)

    def _extract(self, apply_fn: Callable, x: Any, variables: dict[str, Any], count: int) -> np.ndarray:
        self._safe_point()
        size = min(self._config.evaluate.batch_size, count)
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
        surrogates: np.ndarray | None = None,
    ) -> dict:
        self._safe_point()
        options = self._options
        return evaluation.evaluate_features(
            train_z,
            self.train_labels,
            test_z,
            self._source.test.labels,
            num_classes=len(self._source.train.class_names),
            split=split,
            names=names,
            ks=self._config.evaluate.ks if self.labelled else (),
            probe=probe,
            vote=options.vote,
            temperature=options.temperature,
            shots=options.shots,
            published_top5=options.published_top5,
            views=views,
            surrogates=surrogates,
            seed=self._config.seed,
            mesh=self._mesh,
            plugins=self._config.plugins,
            settings=self._metric_settings,
        )


def for_images(config: ConfigDict, source: Source, spec: str) -> ConfigDict:
    """The config for another source: images of another size are resized to the encoder's.

    Raises:
      UserError: if its examples do not make what the encoder takes, as images where that is a stack of frames.
    """
    config = config.copy_and_resolve_references()
    config.data.source = spec
    alone = config.copy_and_resolve_references()
    alone.evaluate.lidar.images = 0  # Not every evaluation measures it.
    check_clips(alone, source, training=False)
    size = config.data.image_size
    # Photographs differ in size: the first may be broken, or the only one that fits.
    if config.data.eval_resize is None and (
        is_encoded(source.test) or source.test.image(0).shape[:2] != (size, size)
    ):
        config.data.eval_resize = size
    return config


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


def _flat(images: Array) -> Array:
    return images.reshape(images.shape[0], -1)


def in_batches(function: Callable[[Array], Array], x: np.ndarray, size: int) -> np.ndarray:
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
