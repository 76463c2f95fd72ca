"""Random projections and directions, on which batch statistics are taken."""

import jax
import jax.numpy as jnp

Array = jax.Array


def orthonormal_projection(key: Array, d: int, k: int) -> Array:
    """[d, k] with orthonormal columns, uniformly distributed (k ≤ d): the Q factor of a Gaussian matrix."""
    return jnp.linalg.qr(jax.random.normal(key, (d, k)))[0]


def unit_directions(key: Array, d: int, m: int) -> Array:
    """[d, m] with columns uniform on the unit sphere."""
    a = jax.random.normal(key, (d, m))
    return a / jnp.linalg.norm(a, axis=0, keepdims=True)
