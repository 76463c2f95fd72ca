"""The online probe: a linear classifier of each readout, trained beside the networks without a say in them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hamjepa_jax.evaluation import readouts
from hamjepa_jax.evaluation.classifier import initial, logits, standardise
from hamjepa_jax.evaluation.ranking import label_rank
from hamjepa_jax.objectives import Embedded

Array = jax.Array


class OnlineProbe(NamedTuple):
    """Attributes:
    num_classes: of the training images.
    split: whether the embeddings are states z = [q; p].
    teacher: whether the teacher's embeddings are read, as they are where the teacher is evaluated.
    optimizer: of the classifiers alone.
    logged: whether loss and accuracy on the batch are among the step's metrics.
    """

    num_classes: int
    split: bool
    teacher: bool
    optimizer: optax.GradientTransformation
    logged: bool

    def init(self, key: Array, dim: int) -> dict[str, Any]:
        """{"params": {readout: classifier}, "opt_state"} for embeddings of `dim` coordinates."""
        sizes = {name: x.shape[1] for name, x in self._read(jnp.zeros((1, dim))).items()}
        keys = jax.random.split(key, len(sizes))
        params = {
            name: initial(k, size, self.num_classes) for k, (name, size) in zip(keys, sizes.items(), strict=True)
        }
        return {"params": params, "opt_state": self.optimizer.init(params)}

    def reads(self, networks: Embedded, teacher: Embedded | None, views: int) -> Array:
        """The embeddings [v, b, d] of the first views, before the projector, that the classifiers learn from."""
        return (teacher if self.teacher else networks).h[:views]

    def gradients(self, params: Any, h: Array, labels: Array) -> tuple[Any, dict[str, Array]]:
        """(gradient, {name: scalar}) of the mean cross-entropy over all views, added up over the readouts.

        Args:
          params: of all classifiers.
          h: [v, b, d], see `reads`; nothing is passed back to what computed it.
          labels: [b].
        """
        # The views of an example lie together, so that a batch that is split over devices stays split.
        x = {name: standardise(part) for name, part in self._read(h.swapaxes(0, 1).reshape(-1, h.shape[2])).items()}
        labels = jnp.repeat(labels, h.shape[0])

        def loss_of(params):
            scores = {name: logits(params[name], part) for name, part in x.items()}
            losses = {
                name: optax.softmax_cross_entropy_with_integer_labels(s, labels).mean()
                for name, s in scores.items()
            }
            return sum(losses.values()), (losses, scores)

        (_, (losses, scores)), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
        if not self.logged:
            return gradient, {}
        top1 = {name: jnp.mean(label_rank(s, labels) < 1, dtype=jnp.float32) for name, s in scores.items()}
        metrics = {f"online_probe_{name}_loss": losses[name] for name in losses}
        return gradient, metrics | {f"online_probe_{name}_top1": top1[name] for name in top1}

    def updated(self, probe: dict[str, Any], gradient: Any) -> dict[str, Any]:
        """The probe after a step of its optimiser."""
        updates, opt_state = self.optimizer.update(gradient, probe["opt_state"], probe["params"])
        return {"params": optax.apply_updates(probe["params"], updates), "opt_state": opt_state}

    def _read(self, z: Array) -> dict[str, Array]:
        return readouts(z, split=self.split)
