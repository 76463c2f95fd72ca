"""Classification of labelled images: a linear layer on the embeddings, trained with the networks."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from hamjepa_jax import parts
from hamjepa_jax.objectives.objective import Context, Objective, Seen, Wide, as_one_batch, refuse
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array
GROUP = "classifier"

SETTINGS = settings(
    classes=field(None, "Number of the images' classes.", kind=int, least=2, most=2**20),
)


@parts.objectives.register(
    "classification",
    SETTINGS,
    title="Classification",
    shown=("cross_entropy", "accuracy"),
    uses_predictor=False,
    reads_qp=False,
    reads_labels=True,
    least_views=1,
)
def classification(context: Context, s: Values) -> Objective:
    """Mean cross-entropy of all views' embeddings, by a linear layer that starts at zero.

    It is supervised: the control of what labels give, and the objective of `transfer --finetune`.
    """
    if s.classes is None:
        refuse("objective.classification.classes", None, "must be the number of the images' classes; set it")

    def init(key: Array) -> dict[str, Array]:
        del key
        return {"kernel": jnp.zeros((context.embed_dim, s.classes)), "bias": jnp.zeros((s.classes,))}

    def loss(params: Any, seen: Seen, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array], Any]:
        del draw, epoch
        scores = class_scores(params, as_one_batch(seen.z))
        labels = jnp.repeat(seen.labels, seen.z.shape[0])
        error = optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()
        accuracy = jnp.mean(jnp.argmax(scores, axis=1) == labels, dtype=jnp.float32)
        return error, {"cross_entropy": error, "accuracy": accuracy}, seen.carried

    return Objective(lambda count: (), 1, loss, reads=GROUP, init=init, wide=Wide())


def class_scores(params: dict[str, Array], z: Array) -> Array:
    """Scores [n, c] of embeddings [n, k]."""
    return jnp.matmul(z.astype(jnp.float32), params["kernel"], precision="highest") + params["bias"][None, :]
