"""The online probe: a linear classifier of each readout, trained beside the networks without a say in them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hamjepa_jax.evaluation import readouts
from hamjepa_jax.evaluation.classifier import initial, logits, standardise
from hamjepa_jax.evaluation.ranking import label_rank

Array = jax.Array


class OnlineProbe(NamedTuple):
    """Attributes:
    num_classes: of the training images.
    split: whether the features are states z = [q; p].
    optimizer: of the classifiers.
    """

    num_classes: int
    split: bool
    optimizer: optax.GradientTransformation

    def init(self, key: Array, dim: int) -> dict[str, Any]:
        """{"params": {readout: classifier}, "opt_state"} for features of `dim` coordinates."""
        sizes = {name: x.shape[1] for name, x in readouts(jnp.zeros((1, dim)), split=self.split).items()}
        keys = dict(zip(sizes, jax.random.split(key, len(sizes)), strict=True))
        params = {name: initial(keys[name], size, self.num_classes) for name, size in sizes.items()}
        return {"params": params, "opt_state": self.optimizer.init(params)}

    def step(self, probe: dict[str, Any], z: Array, labels: Array) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step on the mean cross-entropy of each readout.

        Args:
          probe: as `init` makes it.
          z: [b, k] frozen features.
          labels: [b].

        Returns:
          The probe after it, and each readout's loss and accuracy before it.
        """
        x = {name: standardise(part) for name, part in readouts(z, split=self.split).items()}

        def loss_of(params):
            scores = {name: logits(params[name], part) for name, part in x.items()}
            entropies = optax.softmax_cross_entropy_with_integer_labels
            losses = {name: entropies(score, labels).mean() for name, score in scores.items()}
            return sum(losses.values()), (losses, scores)

        (_, (losses, scores)), gradient = jax.value_and_grad(loss_of, has_aux=True)(probe["params"])
        updates, opt_state = self.optimizer.update(gradient, probe["opt_state"], probe["params"])
        metrics = {f"online_probe_{name}_loss": loss for name, loss in losses.items()}
        metrics |= {
            f"online_probe_{name}_top1": jnp.mean(label_rank(score, labels) < 1, dtype=jnp.float32)
            for name, score in scores.items()
        }
        return {"params": optax.apply_updates(probe["params"], updates), "opt_state": opt_state}, metrics
