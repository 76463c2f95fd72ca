"""A rotation of every pair (q_i, p_i) by an angle of its own, as a predictor."""

import jax.numpy as jnp

from hamjepa_jax.nn import Predictor
from hamjepa_jax.parts import field, predictors, settings

SETTINGS = settings(angle=field(0.1, "Angle at the start."))


@predictors.register("toy_rotation", SETTINGS, has_steps=False)
def toy_rotation(s):
    def init(key, d):
        return {"angle": jnp.full(d, s.angle)}

    def flow(params, z, direction, residual_scale, horizon=None):
        q, p = jnp.split(z, 2, axis=-1)
        angle = jnp.expand_dims(direction * params["angle"], range(z.ndim - 1))
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        return jnp.concatenate([cos * q + sin * p, cos * p - sin * q], axis=-1)

    return Predictor(init, flow)
