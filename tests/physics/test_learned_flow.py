"""Diagnostics of learned flows: exact structure is seen as exact, its absence as absent."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax import dynamics, physics

D = 6
WEIGHTS = np.random.default_rng(0).normal(size=(2, D, D)) / np.sqrt(D)


def potential(q):
    return 0.05 * (q * q).sum(-1) + jnp.tanh(q @ jnp.asarray(WEIGHTS[0], q.dtype)).sum(-1)


def energy(z):
    q, p = jnp.split(z, 2, axis=-1)
    return dynamics.half_square(p) + potential(q) + 10.0


def leapfrog_flow(z, direction):
    q, p = jnp.split(z, 2, axis=-1)
    force = jax.grad(lambda q: potential(q).sum())
    return jnp.concatenate(dynamics.leapfrog(force, q, p, step_size=0.05 * direction, num_steps=2), axis=-1)


def mlp_flow(z, direction):
    return z + direction * 0.2 * jnp.tanh(z @ jnp.asarray(np.kron(np.eye(2), WEIGHTS[1]), z.dtype))


def states(dtype):
    return jnp.asarray(np.random.default_rng(1).normal(size=(9, 2 * D)), dtype)


def test_a_symplectic_flow_measures_as_one(x64):
    m = physics.learned_flow_measurements(
        leapfrog_flow, energy, states(jnp.float64), num_applications=30, num_jacobians=3
    )
    assert m["energy_drift"].shape == (31, 9) and m["singular_values"].shape == (3, 2 * D)
    assert 0 < np.abs(m["energy_drift"]).max() < 1e-3 and not m["energy_drift"][0].any()
    assert m["reversal_error"].max() < 1e-15
    assert m["symplectic_defect"].max() < 1e-14 and np.abs(m["log_abs_det"]).max() < 1e-14
    np.testing.assert_allclose(m["singular_values"] * m["singular_values"][:, ::-1], 1.0, rtol=1e-12)


def test_measurements_agree_with_dynamics(x64):
    z = states(jnp.float64)
    m = physics.learned_flow_measurements(mlp_flow, energy, z, num_applications=1, num_jacobians=4)
    np.testing.assert_allclose(m["symplectic_defect"], dynamics.symplectic_defect(mlp_flow, z[:4]), rtol=1e-12)
    np.testing.assert_allclose(m["log_abs_det"], dynamics.log_abs_det(mlp_flow, z[:4]), rtol=1e-10)
    np.testing.assert_allclose(m["singular_values"], dynamics.singular_values(mlp_flow, z[:4]), rtol=1e-12)
    relative = dynamics.reversal_error(mlp_flow, z) / jnp.linalg.norm(z, axis=-1)
    np.testing.assert_allclose(m["reversal_error"], relative, rtol=1e-12)
    assert m["symplectic_defect"].min() > 1e-2


def test_figures_with_a_comparison(tmp_path):
    numbers = physics.learned_flow_figures(
        leapfrog_flow, energy, states(jnp.float32), tmp_path, comparison=mlp_flow, num_applications=5,
        num_jacobians=2,
    )  # fmt: skip
    assert numbers["learned flow/symplectic_defect_largest"] < 1e-5  # float32
    assert numbers["comparison (MLP)/symplectic_defect_largest"] > 1e-2
    assert json.loads((tmp_path / "numbers.json").read_text()) == numbers
    assert len(list(tmp_path.glob("learned_*.png"))) == len(list(tmp_path.glob("learned_*.pdf"))) == 4
    assert (tmp_path / "captions.md").read_text().count("## ") == 4


def test_states_of_odd_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        physics.learned_flow_figures(leapfrog_flow, energy, jnp.ones((4, 3)), tmp_path)
