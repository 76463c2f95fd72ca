"""A run evaluated on its own images and, at the same moments, on further labelled sources: evaluate.probes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from hamjepa_jax import report
from hamjepa_jax.data import check_source, open_source
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


def with_probes(config: ml_collections.ConfigDict, own: Evaluator) -> Evaluator | Several:
    """The evaluator, with those of config.evaluate.probes beside it if there are any.

    Raises:
      UserError: for a source that cannot be used, has no labels, or has the name of another one.
    """
    others: dict[str, Evaluator] = {}
    for spec in config.evaluate.probes:
        source = open_source(spec, loader=config.data.loader)
        check_source(source)
        if not source.labelled:
            raise UserError(f'evaluate.probes "{spec}": its images have no labels; leave it out.')
        name = source.name.replace("/", "_")
        if name in others or name in report.READOUT_NAMES:
            raise UserError(f'evaluate.probes "{spec}": another one has the name {name!r}; leave it out.')
        its = for_images(config, source, spec)
        its.evaluate.update(references=(), flow=0)
        its.evaluate.lidar.images = 0
        others[name] = Evaluator(its, own.model, source, own.mesh)
    return Several(own, others) if others else own
