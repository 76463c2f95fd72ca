"""The control in which nothing is predicted."""

from hamjepa_jax import parts
from hamjepa_jax.nn.predictors.predictor import Predictor
from hamjepa_jax.parts import Values


@parts.predictors.register("identity", block="predictor", has_steps=False)
def identity(s: Values) -> Predictor:
    """z ↦ z; there are no settings."""
    return identity_predictor()


def identity_predictor() -> Predictor:
    """z ↦ z, without parameters: the control in which nothing is predicted."""
    return Predictor(lambda key, d: {}, lambda params, z, direction, residual_scale, horizon=None: z)
