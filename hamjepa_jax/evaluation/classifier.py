"""The linear classifier of the probes: LayerNorm with learned scale and bias, then a linear layer, all float32."""

import jax
import jax.numpy as jnp

from hamjepa_jax.evaluation.ranking import label_rank

Array = jax.Array
LAYER_NORM_EPS = 1e-5


def initial(key: Array, dim: int, num_classes: int) -> dict[str, Array]:
    """Parameters at the start for features of `dim` coordinates: weight and bias uniform in ±1/√dim."""
    weight_key, bias_key = jax.random.split(key)
    bound = dim**-0.5
    return {
        "norm_scale": jnp.ones((dim,), jnp.float32),
        "norm_bias": jnp.zeros((dim,), jnp.float32),
        "weight": jax.random.uniform(weight_key, (dim, num_classes), jnp.float32, -bound, bound),
        "bias": jax.random.uniform(bias_key, (num_classes,), jnp.float32, -bound, bound),
    }


def standardise(x: Array) -> Array:
    """The part of LayerNorm without parameters, for features [n, d]."""
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis=1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=1, keepdims=True) + LAYER_NORM_EPS)


def logits(params: dict[str, Array], x: Array) -> Array:
    """Scores [n, c] of standardised features [n, d]."""
    x = x * params["norm_scale"][None, :] + params["norm_bias"][None, :]
    return jnp.matmul(x, params["weight"], precision=jax.lax.Precision.HIGHEST) + params["bias"][None, :]


@jax.jit
def top1(params: dict[str, Array], x: Array, y: Array) -> Array:
    """Share of features [n, d] whose class [n] has the highest score, of equal scores the first."""
    return jnp.mean(label_rank(logits(params, standardise(x)), y) < 1)
