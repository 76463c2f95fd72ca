"""Fixed-step integrators of dq/dt = ∂H/∂p, dp/dt = −∂H/∂q as pure functions over `lax.scan`.

A negative step size integrates backwards in time. Energies and potentials are any callables that are batched over
leading axes, so that the gradient of their sum is the gradient of each.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
Hamiltonian = Callable[[Array, Array], Array]

METHODS = ("leapfrog", "symplectic_euler", "euler", "yoshida4")

# Yoshida's triple-jump weights (Yoshida, 1990): w1 + w0 + w1 = 1 and 2·w1³ + w0³ = 0.
_CBRT2 = 2.0 ** (1.0 / 3.0)
_YOSHIDA = (1.0 / (2.0 - _CBRT2), -_CBRT2 / (2.0 - _CBRT2), 1.0 / (2.0 - _CBRT2))


def leapfrog(
    grad_potential: Callable[[Array], Array], q: Array, p: Array, *, step_size: float | Array, num_steps: int
) -> tuple[Array, Array]:
    """Kick-drift-kick velocity Verlet for H = ½‖p‖² + V(q) (paper, eq. 35).

    The gradient that ends a step begins the next one, so `num_steps` steps cost `num_steps` + 1 gradients.

    Args:
      grad_potential: ∇V, [..., d] -> [..., d].
      q: positions [..., d].
      p: momenta, the same shape.
      step_size: Δt, a scalar, or [num_steps], one for each step; negative integrates backwards. A step of size 0
        leaves the state exactly as it is.
      num_steps: static number of steps; 0 is the identity.

    Returns:
      (q, p) after `num_steps` steps.

    Raises:
      ValueError: if q and p differ in shape, num_steps is negative or the step sizes are not as many.
    """
    sizes = _step_sizes(q, p, step_size, num_steps)

    def step(carry, size):
        q, p, force = carry
        dt = step_size if size is None else size
        p = p - 0.5 * dt * force
        q = q + dt * p
        force = grad_potential(q)
        p = p - 0.5 * dt * force
        return (q, p, force), None

    if num_steps == 0:
        return q, p
    (q, p, _), _ = jax.lax.scan(step, (q, p, grad_potential(q)), sizes, length=num_steps)
    return q, p


def integrate(
    hamiltonian: Hamiltonian, q: Array, p: Array, *, step_size: float | Array, num_steps: int, method: str
) -> tuple[Array, Array]:
    """Integrates Hamilton's equations of any energy.

    Args:
      hamiltonian: H(q, p) -> [...], batched over leading axes.
      q: positions [..., d].
      p: momenta, the same shape.
      step_size: as in `leapfrog`.
      num_steps: static number of steps; 0 is the identity.
      method: "leapfrog" (kick-drift-kick; symplectic and reversible for separable H), "symplectic_euler"
        (kick-drift), "euler" (explicit; the non-symplectic control) or "yoshida4" (fourth-order composition of
        three leapfrogs). Partial derivatives are taken at the moves' own points, the other variable held fixed.

    Returns:
      (q, p) after `num_steps` steps.

    Raises:
      ValueError: as `leapfrog`, and if the method is unknown.
    """
    sizes = _step_sizes(q, p, step_size, num_steps)
    step = stepper(hamiltonian, method)

    def advance(z, size):
        return step(*z, step_size if size is None else size), None

    (q, p), _ = jax.lax.scan(advance, (q, p), sizes, length=num_steps)
    return q, p


def stepper(hamiltonian: Hamiltonian, method: str) -> Callable[[Array, Array, float | Array], tuple[Array, Array]]:
    """One step of `method` (see `integrate`) as a function (q, p, step_size) -> (q, p)."""
    dh_dq = jax.grad(lambda q, p: hamiltonian(q, p).sum(), argnums=0)
    dh_dp = jax.grad(lambda q, p: hamiltonian(q, p).sum(), argnums=1)

    def leapfrog_step(q, p, dt):
        p = p - 0.5 * dt * dh_dq(q, p)
        q = q + dt * dh_dp(q, p)
        return q, p - 0.5 * dt * dh_dq(q, p)

    def symplectic_euler_step(q, p, dt):
        p = p - dt * dh_dq(q, p)
        return q + dt * dh_dp(q, p), p

    def euler_step(q, p, dt):
        return q + dt * dh_dp(q, p), p - dt * dh_dq(q, p)

    def yoshida4_step(q, p, dt):
        for weight in _YOSHIDA:
            q, p = leapfrog_step(q, p, weight * dt)
        return q, p

    steps = {
        "leapfrog": leapfrog_step,
        "symplectic_euler": symplectic_euler_step,
        "euler": euler_step,
        "yoshida4": yoshida4_step,
    }
    if method not in steps:
        raise ValueError(f"unknown integration method {method!r}; expected one of {', '.join(METHODS)}.")
    return steps[method]


def _step_sizes(q: Array, p: Array, step_size: float | Array, num_steps: int) -> Array | None:
    """The step sizes to scan over, None where one serves all steps; checks the arguments of a rollout."""
    if q.shape != p.shape:
        raise ValueError(f"positions and momenta must have one shape, got q {q.shape} and p {p.shape}.")
    if num_steps < 0:
        raise ValueError(f"num_steps must not be negative, got {num_steps}.")
    if jnp.ndim(step_size) == 0:
        return None
    if jnp.shape(step_size) != (num_steps,):
        raise ValueError(f"{num_steps} steps need one step size or [{num_steps}], got {jnp.shape(step_size)}.")
    return jnp.asarray(step_size)
