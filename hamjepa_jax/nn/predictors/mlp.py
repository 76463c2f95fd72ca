"""The unstructured ablation: a residual MLP of the whole state."""

from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import parts
from hamjepa_jax.nn.mlp import MLP
from hamjepa_jax.nn.predictors.predictor import SHARED, Predictor, at_least_float32, taken
from hamjepa_jax.parts import Values

Array = jax.Array
SETTINGS = SHARED


@parts.predictors.register("mlp", SETTINGS, block="predictor", has_steps=True)
def mlp(s: Values) -> Predictor:
    """The predictor of these settings, see `mlp_predictor`."""
    return mlp_predictor(num_steps=s.num_steps, hidden=s.hidden, depth=s.depth)


def mlp_predictor(*, num_steps: int, hidden: int, depth: int) -> Predictor:
    """The unstructured ablation: `num_steps` of z ← z + MLP(z), backwards z ← z − MLP(z), one shared MLP."""

    def init(key: Array, d: int) -> Any:
        return {"mlp": MLP(hidden, depth, 2 * d).init(key, jnp.zeros((1, 2 * d)))["params"]}

    def flow(
        params: Any, z: Array, direction: int, residual_scale: float | Array, horizon: int | Array | None = None
    ) -> Array:
        del residual_scale  # The map has no energy, hence nothing to scale.
        mlp = MLP(hidden, depth, z.shape[-1])
        x = at_least_float32(z)

        def step(x, size):
            change = direction * mlp.apply({"params": params["mlp"]}, x)
            return x + (change if size is None else size * change), None

        sizes = None if horizon is None else taken(horizon, num_steps).astype(x.dtype)
        return jax.lax.scan(step, x, sizes, length=num_steps)[0].astype(z.dtype)

    return Predictor(init, flow)
