"""Scalar energies H(q, p) of phase-space states, batched over leading axes: [..., d] × [..., d] -> [...]."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


def half_square(x: Array) -> Array:
    """½‖x‖² over the last axis: [..., d] -> [...]."""
    return 0.5 * jnp.sum(x * x, axis=-1)


def quadratic(q: Array, p: Array) -> Array:
    """H = ½‖q‖² + ½‖p‖², the harmonic oscillator with unit frequencies."""
    return half_square(q) + half_square(p)


def separable(potential: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    """H = ½‖p‖² + V(q) for a potential V: [..., d] -> [...] (paper, eq. 35)."""
    return lambda q, p: half_square(p) + potential(q)


def general(residual: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    """H = ½‖q‖² + ½‖p‖² + f([q, p]), f: [..., 2d] -> [...].

    Not separable: explicit leapfrog and symplectic Euler are then neither symplectic nor exactly reversible.
    """
    return lambda q, p: quadratic(q, p) + residual(jnp.concatenate([q, p], axis=-1))
