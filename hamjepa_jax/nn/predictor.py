"""Predictors of one view's state from another's, as pairs of pure functions over a parameter tree."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hamjepa_jax import dynamics
from hamjepa_jax.nn.mlp import MLP

Array = jax.Array
ENERGIES = ("separable", "quadratic", "general")


class Predictor(NamedTuple):
    """A learned map of phase-space states and its energy.

    Attributes:
      init: (key, d) -> parameters, for states z = [q; p] with q, p of size d.
      flow: (params, z, direction, residual_scale, horizon=None) -> z, [..., 2d] each; direction ±1 is static,
        residual_scale a scalar that multiplies the learned part of the energy (ignored where there is none).
        horizon, which may be traced, is how many of the steps are taken; None takes all. Computed in float32,
        returned in z's type.
      energy: (params, z, residual_scale) -> [...]; None where the map has no energy.
      potential: (params, q) -> [...], the learned part of a separable energy; None elsewhere.
    """

    init: Callable[[Array, int], Any]
    flow: Callable[..., Array]
    energy: Callable[..., Array] | None = None
    potential: Callable[..., Array] | None = None


def hamiltonian_predictor(
    *,
    energy: str,
    method: str,
    step_size: float,
    num_steps: int,
    hidden: int,
    depth: int,
    base_coeff: float,
    learnable_step_size: bool = False,
) -> Predictor:
    """The Hamiltonian map: `num_steps` steps of `method` on a learned energy (paper, section 4).

    Args:
      energy: "separable", ½‖p‖² + ½·base_coeff·‖q‖² + s·f(q); "quadratic", ½‖q‖² + ½‖p‖², no parameters; or
        "general", ½‖q‖² + ½‖p‖² + s·f([q, p]), for which explicit integrators are not symplectic. s is the
        residual scale given at each call.
      method: one of `dynamics.METHODS`.
      step_size: Δt; the initial value if learnable.
      num_steps: number of integration steps.
      hidden: width of f, an MLP with exact GELU.
      depth: number of hidden layers of f.
      base_coeff: α of the separable energy.
      learnable_step_size: Δt = softplus(raw) with a trained raw value.
    """
    mlp = MLP(hidden, depth, 1)

    def init(key: Array, d: int) -> Any:
        params = {}
        if energy != "quadratic":
            params["mlp"] = mlp.init(key, jnp.zeros((1, 2 * d if energy == "general" else d)))["params"]
        if learnable_step_size:
            params["raw_step_size"] = jnp.log(jnp.expm1(jnp.float32(step_size)))
        return params

    def residual(params, x):
        return mlp.apply({"params": params["mlp"]}, x)[..., 0]

    def hamiltonian(params, scale):
        if energy == "quadratic":
            return dynamics.quadratic
        if energy == "general":
            return dynamics.general(lambda z: scale * residual(params, z))
        return dynamics.separable(potential(params, scale))

    def potential(params, scale):
        return lambda q: base_coeff * dynamics.half_square(q) + scale * residual(params, q)

    def flow(
        params: Any, z: Array, direction: int, residual_scale: float | Array, horizon: int | Array | None = None
    ) -> Array:
        q, p = jnp.split(_at_least_float32(z), 2, axis=-1)
        dt = jax.nn.softplus(params["raw_step_size"]) if learnable_step_size else step_size
        dt = direction * dt
        if horizon is not None:  # Steps beyond it have Δt = 0 and move nothing: one program serves every horizon.
            dt = dt * _taken(horizon, num_steps).astype(q.dtype)
        if energy == "separable" and method == "leapfrog":
            force = jax.grad(lambda q: potential(params, residual_scale)(q).sum())
            q, p = dynamics.leapfrog(force, q, p, step_size=dt, num_steps=num_steps)
        else:
            h = hamiltonian(params, residual_scale)
            q, p = dynamics.integrate(h, q, p, step_size=dt, num_steps=num_steps, method=method)
        return jnp.concatenate([q, p], axis=-1).astype(z.dtype)

    def energy_of(params: Any, z: Array, residual_scale: float | Array) -> Array:
        q, p = jnp.split(_at_least_float32(z), 2, axis=-1)
        return hamiltonian(params, residual_scale)(q, p)

    return Predictor(init, flow, energy_of, residual if energy == "separable" else None)


def mlp_predictor(*, num_steps: int, hidden: int, depth: int) -> Predictor:
    """The unstructured ablation: `num_steps` of z ← z + MLP(z), backwards z ← z − MLP(z), one shared MLP."""

    def init(key: Array, d: int) -> Any:
        return {"mlp": MLP(hidden, depth, 2 * d).init(key, jnp.zeros((1, 2 * d)))["params"]}

    def flow(
        params: Any, z: Array, direction: int, residual_scale: float | Array, horizon: int | Array | None = None
    ) -> Array:
        del residual_scale  # The map has no energy, hence nothing to scale.
        mlp = MLP(hidden, depth, z.shape[-1])
        x = _at_least_float32(z)

        def step(x, size):
            change = direction * mlp.apply({"params": params["mlp"]}, x)
            return x + (change if size is None else size * change), None

        sizes = None if horizon is None else _taken(horizon, num_steps).astype(x.dtype)
        return jax.lax.scan(step, x, sizes, length=num_steps)[0].astype(z.dtype)

    return Predictor(init, flow)


def identity_predictor() -> Predictor:
    """z ↦ z, without parameters: the control in which nothing is predicted."""
    return Predictor(lambda key, d: {}, lambda params, z, direction, residual_scale, horizon=None: z)


def _taken(horizon: int | Array, num_steps: int) -> Array:
    """Whether each step is taken: [num_steps] booleans."""
    return jnp.arange(num_steps) < horizon


def _at_least_float32(z: Array) -> Array:
    return z.astype(jnp.promote_types(z.dtype, jnp.float32))
