"""Trajectories and end points of the demonstration systems: NumPy float64 in, NumPy float64 out.

Everything is vectorised over starts and compiled. Double precision is switched on inside each function and nowhere
else, because structure preserved to roundoff is the claim on show and the rest of a process may run in float32.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hamjepa_jax import dynamics, rng
from hamjepa_jax.physics.systems import System


def rollout(
    system: System, q0: np.ndarray, p0: np.ndarray, *, method: str, step_size: float, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Every state of the trajectories from (q0, p0).

    Args:
      system: the system to integrate.
      q0: starting positions [...].
      p0: starting momenta, the same shape.
      method: a method of `dynamics.integrate`.
      step_size: Δt, in the system's time unit.
      num_steps: number of steps.

    Returns:
      (q, p), each [num_steps + 1, ...]; q is not wrapped. Overflow shows as inf or nan.

    Raises:
      ValueError: if q0 and p0 differ in shape or the method is unknown.
    """
    q0, p0 = _states(q0, p0)
    with jax.enable_x64(True):
        return _as_numpy(_rollout(system, method, num_steps, jnp.asarray(q0), jnp.asarray(p0), step_size))


def endpoint(
    system: System, q0: np.ndarray, p0: np.ndarray, *, method: str, step_size: float, num_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The last state of `rollout`, (q, p) each [...], without holding the ones before."""
    q0, p0 = _states(q0, p0)
    with jax.enable_x64(True):
        return _as_numpy(_endpoint(system, method, num_steps, jnp.asarray(q0), jnp.asarray(p0), step_size))


def return_error(
    system: System, q0: np.ndarray, p0: np.ndarray, *, method: str, step_size: float, num_steps: int
) -> np.ndarray:
    """‖(q, p) after `num_steps` steps forward and as many with −Δt, minus (q0, p0)‖₂: [...] -> [...].

    Trajectories that overflow have error inf.
    """
    q0, p0 = _states(q0, p0)
    with jax.enable_x64(True):
        z = jnp.stack([jnp.asarray(q0), jnp.asarray(p0)], axis=-1)
        error = np.asarray(_return_error(system, method, num_steps, z, step_size))
    return np.where(np.isnan(error), np.inf, error)


def symplectic_defect(
    system: System, q0: np.ndarray, p0: np.ndarray, *, method: str, step_size: float, num_steps: int
) -> np.ndarray:
    """‖JᵀΩJ − Ω‖_F of the map over `num_steps` steps, at each start: [...] -> [...]."""
    q0, p0 = _states(q0, p0)
    with jax.enable_x64(True):
        z = jnp.stack([jnp.asarray(q0), jnp.asarray(p0)], axis=-1)
        return np.asarray(_symplectic_defect(system, method, num_steps, z, step_size))


def energy(system: System, q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """H(q, p) in float64: [...] × [...] -> [...]."""
    q, p = _states(q, p)
    with jax.enable_x64(True):
        return np.asarray(_energy(system, jnp.asarray(q)[..., None], jnp.asarray(p)[..., None]))


def random_starts(system: System, num: int) -> tuple[np.ndarray, np.ndarray]:
    """`num` starts, uniform over the system's window, the same at every call: (q0, p0), each [num]."""
    with jax.enable_x64(True):
        u = jax.random.uniform(rng.stream(0, "physics/starts"), (2, num), minval=-1.0, maxval=1.0)
        u = np.asarray(u, np.float64)
    return u[0] * system.q_max, u[1] * system.p_max


def _states(q, p):
    q, p = np.asarray(q, np.float64), np.asarray(p, np.float64)
    if q.shape != p.shape:
        raise ValueError(f"positions and momenta must have one shape, got q {q.shape} and p {p.shape}.")
    return q, p


def _as_numpy(state):
    q, p = state
    return np.asarray(q), np.asarray(p)


_compiled = functools.partial(jax.jit, static_argnums=(0, 1, 2))


@_compiled
def _rollout(system, method, num_steps, q, p, step_size):
    step = dynamics.stepper(system.energy, method)

    def advance(state, _):
        state = step(*state, step_size)
        return state, state

    start = (q[..., None], p[..., None])
    _, states = jax.lax.scan(advance, start, length=num_steps)
    return tuple(jnp.concatenate([s[None], rest])[..., 0] for s, rest in zip(start, states, strict=True))


def _flow(system, method, num_steps, step_size):
    def flow(z, direction):
        q, p = jnp.split(z, 2, axis=-1)
        signed = direction * step_size
        q, p = dynamics.integrate(system.energy, q, p, step_size=signed, num_steps=num_steps, method=method)
        return jnp.concatenate([q, p], axis=-1)

    return flow


@_compiled
def _endpoint(system, method, num_steps, q, p, step_size):
    z = _flow(system, method, num_steps, step_size)(jnp.stack([q, p], axis=-1), 1)
    return z[..., 0], z[..., 1]


@_compiled
def _return_error(system, method, num_steps, z, step_size):
    return dynamics.reversal_error(_flow(system, method, num_steps, step_size), z)


@_compiled
def _symplectic_defect(system, method, num_steps, z, step_size):
    return dynamics.symplectic_defect(_flow(system, method, num_steps, step_size), z)


@functools.partial(jax.jit, static_argnums=0)
def _energy(system, q, p):
    return system.energy(q, p)
