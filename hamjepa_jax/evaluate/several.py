"""A run evaluated on its own images and, at the same moments, on further labelled sources: evaluate.probes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax import build, report
from hamjepa_jax.config import check_frames
from hamjepa_jax.data import Source, check_source, frames_of, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate.evaluator import Evaluator, for_images
from hamjepa_jax.training.state import TrainState


class Several:
    """An evaluator that others follow: their numbers stand beside its own, under the names of their sources.

    In training "NAME/q/knn_…" beside "q/knn_…"; at the end {"trained": …, "on NAME": …}.
    """

    def __init__(self, own: Evaluator, others: Mapping[str, Evaluator]):
        self._own, self._others = own, others

    @property
    def others(self) -> list[str]:
        """The names of the further sources."""
        return list(self._others)

    def features(self, state: TrainState) -> list[np.ndarray]:
        return self._own.features(state)

    def in_training(self, features: Sequence[np.ndarray], state: TrainState) -> dict[str, float]:
        found, bare = self._own.in_training(features, state), state.replace(probe=None)
        for name, other in self._others.items():
            measured = other.in_training(other.features(state), bare)
            found |= {f"{name}/{key}": value for key, value in measured.items()}
        return found

    def at_the_end(self, state: TrainState, init: Callable[[], TrainState], **known: Any) -> tuple[dict, dict]:
        results, summary = self._own.at_the_end(state, init, **known)
        unknown = {name: value for name, value in known.items() if name != "features"}
        for name, other in self._others.items():
            results[f"on {name}"] = other.at_the_end(state, init, **unknown)[0]["trained"]
        return results, summary

    def neighbours(self, features: Sequence[np.ndarray]) -> report.Neighbours:
        return self._own.neighbours(features)


class Others(NamedTuple):
    """Images other than the training's that a run is evaluated on.

    Attributes:
      instead: those of evaluate.source, in place of the run's own; None for its own.
      probes: {name: (spec, images)} of evaluate.probes, beside them.
    """

    instead: Source | None
    probes: Mapping[str, tuple[str, Source]]


def open_others(config: ml_collections.ConfigDict, source: Source) -> Others:
    """Opens the images that evaluate.source and evaluate.probes name.

    Args:
      config: of the run.
      source: its own images.

    Raises:
      UserError: for images that cannot be used, have no labels, or have the name of other ones.
    """
    spec, instead = config.evaluate.source, None
    if spec is not None:
        instead = _opened("evaluate.source", spec, config, "name a source with labels, or None")
        classes = tuple(instead.train.class_names)
        if config.evaluate.online_probe.enabled and classes != tuple(source.train.class_names):
            raise UserError(
                f'evaluate.source "{spec}": has other classes than the training images, which the online probe '
                f"learns; set evaluate.online_probe.enabled=False, or name the source in evaluate.probes instead."
            )
    probes: dict[str, tuple[str, Source]] = {}
    for spec in config.evaluate.probes:
        probe = _opened("evaluate.probes", spec, config, "leave it out")
        name = probe.name.replace("/", "_")
        if name in probes or name in report.READOUT_NAMES:
            raise UserError(f'evaluate.probes "{spec}": another one has the name {name!r}; leave it out.')
        probes[name] = spec, probe
    return Others(instead, probes)


def evaluator_of(
    config: ml_collections.ConfigDict,
    model: build.Model,
    source: Source,
    mesh: Mesh,
    *,
    others: Others | None = None,
    train_images: jax.Array | None = None,
) -> Evaluator | Several:
    """The evaluator that a run evaluates itself by, with those of config.evaluate.probes beside it, if any.

    Args:
      config, model, source, mesh, train_images: as for `Evaluator`; source is that of the training.
      others: of `open_others`; opened now if None.

    Raises:
      UserError: as `open_others`.
    """
    others = open_others(config, source) if others is None else others
    spec, instead = config.evaluate.source, others.instead
    if instead is None:
        own = Evaluator(config, model, source, mesh, train_images=train_images)
    else:
        own = Evaluator(for_images(config, instead, spec), model, instead, mesh)
    beside = {}
    for name, (spec, probe) in others.probes.items():
        its = for_images(config, probe, spec)
        its.evaluate.update(references=(), flow=0)
        its.evaluate.lidar.images = 0
        beside[name] = Evaluator(its, model, probe, mesh)
    return Several(own, beside) if beside else own


def _opened(field: str, spec: str, config: ml_collections.ConfigDict, remedy: str) -> Source:
    source = open_source(spec, loader=config.data.loader, field=field)
    check_source(source)
    if not source.labelled:
        raise UserError(f'{field} "{spec}": its images have no labels; {remedy}.')
    its = for_images(config, source, spec)  # Refuses what the encoder cannot take.
    if field == "evaluate.source":  # Probes measure no LiDAR.
        check_frames(its, frames_of(source.test), training=False)
    return source
