"""One view predicted from the other by a matrix of the objective's own; a hinge keeps coordinates varying."""

import jax
import jax.numpy as jnp

from hamjepa_jax.objectives import Objective
from hamjepa_jax.parts import field, objectives, settings

SETTINGS = settings(spread_weight=field(1.0, "Weight of the hinge on every standard deviation.", least=0))


@objectives.register(
    "toy_matrix", SETTINGS, title="Toy", shown=("pred", "spread"), uses_predictor=False, reads_qp=False
)
def toy_matrix(context, s):
    def loss(matrix, z, draw, epoch):
        pred = jnp.square(z[0] @ matrix - jax.lax.stop_gradient(z[1])).mean()
        spread = jnp.square(jnp.maximum(0, 1 - z.std(axis=1))).mean()
        return pred + s.spread_weight * spread, {"pred": pred, "spread": spread}

    def init():
        return 0.9 * jnp.eye(context.embed_dim)

    return Objective(lambda count: (), 1, loss, reads="toy_matrix", init=init)
