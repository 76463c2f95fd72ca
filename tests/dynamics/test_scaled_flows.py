"""Scalings S = diag(a, b) of phase space against leapfrog steps (docs/derivations.md has the proofs)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax import dynamics

DT, STEPS = 0.1, 5


def lopsided(q):
    return (jnp.exp(q) - q).sum(-1)


def degree_two(q):
    """Homogeneous of degree 2, and not a quadratic form."""
    return jnp.sqrt((q**4).sum(-1) + (q[..., 0] * q[..., 1]) ** 2)


def random_state():
    q, p = 0.5 * np.random.default_rng(1).normal(size=(2, 3, 4))
    return jnp.asarray(q), jnp.asarray(p)


def flow(potential, step_size=DT):
    gradient = jax.grad(lambda q: potential(q).sum())
    return lambda q, p: dynamics.leapfrog(gradient, q, p, step_size=step_size, num_steps=STEPS)


def conjugated(step, a, b):
    """S⁻¹ ∘ step ∘ S with S = diag(a, b)."""

    def map_of(q, p):
        q, p = step(a * q, b * p)
        return q / a, p / b

    return map_of


def distance(one, other):
    return max(
        float(jnp.abs(x - y).max()) for x, y in zip(one(*random_state()), other(*random_state()), strict=True)
    )


@pytest.mark.parametrize(("a", "b"), [(1.7, 1 / 1.7), (0.6, 1 / 0.6), (1.7, 0.8), (-1.3, 0.5)])
def test_a_scaled_leapfrog_is_the_leapfrog_of_the_scaled_potential(a, b, x64):
    scaled = flow(lambda q: lopsided(a * q) / b**2, step_size=b / a * DT)
    assert distance(conjugated(flow(lopsided), a, b), scaled) < 1e-13


@pytest.mark.parametrize("s", [0.6, 1.7])
def test_a_symplectic_scaling_gives_the_leapfrog_of_the_transformed_hamiltonian(s, x64):
    """H∘S = ½‖p‖²/s² + V(sq) with the old step size; with unit mass in its place it is another map."""

    def steps(inverse_mass):
        return lambda q, p: dynamics.integrate(
            lambda q, p: 0.5 * inverse_mass * (p * p).sum(-1) + lopsided(s * q),
            q, p, step_size=DT, num_steps=STEPS, method="leapfrog",
        )  # fmt: skip

    scaled = conjugated(flow(lopsided), s, 1 / s)
    assert distance(scaled, steps(1 / s**2)) < 1e-13
    assert distance(scaled, steps(1.0)) > 1e-2


@pytest.mark.parametrize("potential", [lopsided, degree_two, lambda q: 0.05 * (q * q).sum(-1)])
def test_no_scaling_by_s_and_its_inverse_commutes_with_leapfrog(potential, x64):
    assert distance(conjugated(flow(potential), 1.7, 1 / 1.7), flow(potential)) > 1e-2


def test_a_uniform_scaling_commutes_where_the_potential_has_degree_two(x64):
    for a in (0.4, 2.5):
        assert distance(conjugated(flow(degree_two), a, a), flow(degree_two)) < 1e-13
        assert distance(conjugated(flow(lopsided), a, a), flow(lopsided)) > 1e-3
