"""Embeddings drawn to a teacher's by a network of the objective's own, and away from the mean that it carries."""

import jax
import jax.numpy as jnp

from hamjepa_jax.objectives import Objective, Teacher, Wide
from hamjepa_jax.parts import field, objectives, settings

SETTINGS = settings(momentum=field(0.9, "The teacher's momentum.", least=0, most=1))


@objectives.register(
    "toy_wide",
    SETTINGS,
    title="Toy with a teacher",
    shown=("pred", "spread"),
    uses_predictor=False,
    reads_qp=False,
)
def toy_wide(context, s):
    def init(key):
        return 0.1 * jax.random.normal(key, (context.embed_dim, context.embed_dim))

    def loss(matrix, seen, draw, epoch):
        pred = jnp.square(seen.z[0] + seen.z[0] @ matrix - seen.teacher.z[1]).mean()
        spread = jnp.square(seen.z - seen.carried["mean"]).mean()
        mean = 0.9 * seen.carried["mean"] + 0.1 * jax.lax.stop_gradient(seen.z.mean(axis=(0, 1), keepdims=True))
        return pred - 0.1 * jnp.log(spread + 1e-3), {"pred": pred, "spread": spread}, {"mean": mean}

    wide = Wide(
        teacher=Teacher(lambda share: s.momentum + 0 * share),
        carried=lambda key: {"mean": jnp.zeros((1, 1, context.embed_dim))},
    )
    return Objective(lambda count: (), 1, loss, reads="toy_wide", init=init, wide=wide)
