"""The Hamiltonian predictor: a few steps of an integrator on a learned energy."""

from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import dynamics, parts
from hamjepa_jax.nn.mlp import MLP
from hamjepa_jax.nn.predictors.predictor import SHARED, Predictor, at_least_float32, taken
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array
ENERGIES = ("separable", "quadratic", "general")

_OWN = settings(
    energy=field(
        "separable",
        "Form of the energy: ½‖p‖² + ½·base_coeff·‖q‖² + s·f(q); ½‖q‖² + ½‖p‖²; or ½‖q‖² + ½‖p‖² + s·f([q, p]).",
        choices=ENERGIES,
    ),
    method=field("leapfrog", "Integrator; euler is the control that is not symplectic.", choices=dynamics.METHODS),
    step_size=field(0.05, "Δt of a step."),
    base_coeff=field(0.1, "Stiffness α of ½·α‖q‖² in the separable energy."),
)
SETTINGS = _OWN | SHARED


def _warnings(s: Values) -> list[str]:
    if s.energy != "general":
        return []
    return [
        f"predictor.energy 'general' is not separable: predictor.method {s.method!r} is then neither symplectic "
        f"nor exactly reversible, and the flow need not preserve volume."
    ]


@parts.predictors.register("hamiltonian", SETTINGS, block="predictor", has_steps=True, warnings=_warnings)
def hamiltonian(s: Values) -> Predictor:
    """The predictor of these settings, see `hamiltonian_predictor`."""
    return hamiltonian_predictor(
        energy=s.energy,
        method=s.method,
        step_size=s.step_size,
        num_steps=s.num_steps,
        hidden=s.hidden,
        depth=s.depth,
        base_coeff=s.base_coeff,
    )


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
        q, p = jnp.split(at_least_float32(z), 2, axis=-1)
        dt = jax.nn.softplus(params["raw_step_size"]) if learnable_step_size else step_size
        dt = direction * dt
        if horizon is not None:  # Steps beyond it have Δt = 0 and move nothing: one program serves every horizon.
            dt = dt * taken(horizon, num_steps).astype(q.dtype)
        if energy == "separable" and method == "leapfrog":
            force = jax.grad(lambda q: potential(params, residual_scale)(q).sum())
            q, p = dynamics.leapfrog(force, q, p, step_size=dt, num_steps=num_steps)
        else:
            h = hamiltonian(params, residual_scale)
            q, p = dynamics.integrate(h, q, p, step_size=dt, num_steps=num_steps, method=method)
        return jnp.concatenate([q, p], axis=-1).astype(z.dtype)

    def energy_of(params: Any, z: Array, residual_scale: float | Array) -> Array:
        q, p = jnp.split(at_least_float32(z), 2, axis=-1)
        return hamiltonian(params, residual_scale)(q, p)

    return Predictor(init, flow, energy_of, residual if energy == "separable" else None)
