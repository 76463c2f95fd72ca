"""How far a map of phase space is from symplectic, volume-preserving and reversible.

A flow is a callable flow(z, direction) on states z = [q; p] of shape [2d] and batches of them, direction ±1.
The functions return one number per state, z [..., 2d] -> [...], but for `singular_values`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Flow = Callable[[Array, int], Array]


def symplectic_defect(flow: Flow, z: Array) -> Array:
    """‖JᵀΩJ − Ω‖_F with J = D flow(z, +1) and Ω = [[0, I], [−I, 0]]; zero iff the map is symplectic at z."""
    d = _half(z)
    omega = jnp.block([[jnp.zeros((d, d)), jnp.eye(d)], [-jnp.eye(d), jnp.zeros((d, d))]]).astype(z.dtype)

    def defect(jacobian):
        pulled_back = jnp.einsum("ki,kl,lj->ij", jacobian, omega, jacobian, precision="highest")
        return jnp.linalg.norm(pulled_back - omega)

    return _over_states(lambda x: defect(_jacobian(flow, x)), z)


def log_abs_det(flow: Flow, z: Array) -> Array:
    """log |det D flow(z, +1)|; zero for every symplectic (indeed every volume-preserving) map."""
    _half(z)
    return _over_states(lambda x: jnp.linalg.slogdet(_jacobian(flow, x))[1], z)


def singular_values(flow: Flow, z: Array) -> Array:
    """Singular values of D flow(z, +1), descending: [..., 2d] -> [..., 2d]; they pair as (σ, 1/σ) if symplectic."""
    _half(z)
    return _over_states(lambda x: jnp.linalg.svd(_jacobian(flow, x), compute_uv=False), z)


def reversal_error(flow: Flow, z: Array) -> Array:
    """‖flow(flow(z, +1), −1) − z‖₂: the return error of going forward and then backward in time."""
    _half(z)
    return jnp.linalg.norm(flow(flow(z, 1), -1) - z, axis=-1)


def _half(z: Array) -> int:
    if z.ndim == 0 or z.shape[-1] % 2:
        raise ValueError(f"a phase-space state has an even last axis [q; p], got shape {z.shape}.")
    return z.shape[-1] // 2


def _jacobian(flow: Flow, x: Array) -> Array:
    return jax.jacfwd(lambda y: flow(y, 1))(x)


def _over_states(function: Callable[[Array], Array], z: Array) -> Array:
    """Applies a function of one state [2d] to every state of z [..., 2d]."""
    values = jax.vmap(function)(z.reshape(-1, z.shape[-1]))
    return values.reshape(*z.shape[:-1], *values.shape[1:])
