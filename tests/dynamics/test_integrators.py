"""Integrators against closed forms, convergence orders and the published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax import dynamics

# An asymmetric potential (a flipped sign or a wrong half step shows) and a random MLP beside the oscillator.
_WEIGHTS = np.random.default_rng(0).normal(size=(2, 4, 4))


def harmonic(q):
    return 0.5 * (q * q).sum(-1)


def lopsided(q):
    return (jnp.exp(q) - q).sum(-1)


def random_mlp(q):
    hidden = jnp.tanh(q @ jnp.asarray(_WEIGHTS[0], q.dtype))
    return jnp.sin(hidden @ jnp.asarray(_WEIGHTS[1], q.dtype)).sum(-1) + harmonic(q)


POTENTIALS = [harmonic, lopsided, random_mlp]


def random_state(n=3, d=4, dtype=np.float64):
    q, p = 0.5 * np.random.default_rng(1).normal(size=(2, n, d))
    return jnp.asarray(q, dtype), jnp.asarray(p, dtype)


def grad_of(potential):
    return jax.grad(lambda q: potential(q).sum())


def as_flow(method, potential, dt=0.1, steps=8):
    def flow(z, direction):
        q, p = jnp.split(z, 2, axis=-1)
        hamiltonian = dynamics.separable(potential)
        return jnp.concatenate(
            dynamics.integrate(hamiltonian, q, p, step_size=direction * dt, num_steps=steps, method=method), -1
        )

    return flow


@pytest.mark.parametrize("potential", POTENTIALS)
def test_leapfrog_equals_the_scheme_written_out(potential, x64):
    q, p = random_state()
    got = dynamics.leapfrog(grad_of(potential), q, p, step_size=0.1, num_steps=3)
    for _ in range(3):
        p = p - 0.05 * grad_of(potential)(q)
        q = q + 0.1 * p
        p = p - 0.05 * grad_of(potential)(q)
    np.testing.assert_allclose(got[0], q, rtol=1e-14)
    np.testing.assert_allclose(got[1], p, rtol=1e-14)


def test_leapfrog_of_the_oscillator_is_its_matrix_power(x64):
    # One step on ½q² + ½p² is [[1 − h²/2, h], [−h(1 − h²/4), 1 − h²/2]].
    h, (q, p) = 0.3, random_state()
    matrix = np.array([[1 - h * h / 2, h], [-h * (1 - h * h / 4), 1 - h * h / 2]])
    want = np.einsum("ij,jnd->ind", np.linalg.matrix_power(matrix, 7), np.stack([q, p]))
    got = dynamics.leapfrog(lambda q: q, q, p, step_size=h, num_steps=7)
    np.testing.assert_allclose(np.stack(got), want, atol=1e-14)


@pytest.mark.parametrize("potential", POTENTIALS)
def test_leapfrog_costs_one_gradient_more_than_steps(potential):
    calls = []

    def counted(q):
        jax.debug.callback(lambda: calls.append(1))
        return grad_of(potential)(q)

    jax.block_until_ready(dynamics.leapfrog(counted, *random_state(dtype=np.float32), step_size=0.1, num_steps=5))
    jax.effects_barrier()
    assert len(calls) == 6


@pytest.mark.parametrize("potential", POTENTIALS)
def test_leapfrog_returns_when_time_is_reversed(potential, x64):
    z = random_state()
    there = dynamics.leapfrog(grad_of(potential), *z, step_size=0.1, num_steps=8)
    back = dynamics.leapfrog(grad_of(potential), *there, step_size=-0.1, num_steps=8)
    np.testing.assert_allclose(np.stack(back), np.stack(z), atol=1e-12)  # roundoff, not "close"


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("method", ["leapfrog", "symplectic_euler", "yoshida4"])
def test_symplectic_maps_preserve_the_form_and_volume(method, potential, x64):
    z, flow = jnp.concatenate(random_state(), -1), as_flow(method, potential)
    assert dynamics.symplectic_defect(flow, z).max() < 1e-12
    assert jnp.abs(dynamics.log_abs_det(flow, z)).max() < 1e-12
    singular = dynamics.singular_values(flow, z)
    np.testing.assert_allclose(singular * singular[..., ::-1], 1.0, atol=1e-11)  # pairs (σ, 1/σ)


@pytest.mark.parametrize("method", ["leapfrog", "symplectic_euler"])
def test_symplectic_in_float32_to_its_roundoff(method):
    z = jnp.concatenate(random_state(dtype=np.float32), -1)
    assert dynamics.symplectic_defect(as_flow(method, lopsided), z).max() < 1e-5


def test_explicit_euler_is_seen_to_break_the_structure(x64):
    z, flow = jnp.concatenate(random_state(), -1), as_flow("euler", lopsided)
    assert dynamics.symplectic_defect(flow, z).min() > 1e-2
    assert jnp.abs(dynamics.log_abs_det(flow, z)).min() > 1e-2
    assert dynamics.reversal_error(flow, z).min() > 1e-2


def test_general_energy_is_seen_not_to_be_symplectic(x64):
    def coupled(z):
        return jnp.sin(z).sum(-1) * z[..., 0] * z[..., -1]

    def flow(z, direction):
        q, p = jnp.split(z, 2, axis=-1)
        step = dict(step_size=0.1 * direction, num_steps=3, method="leapfrog")
        return jnp.concatenate(dynamics.integrate(dynamics.general(coupled), q, p, **step), -1)

    assert dynamics.symplectic_defect(flow, jnp.concatenate(random_state(), -1)).min() > 1e-6


@pytest.mark.parametrize("method, order", [("euler", 1), ("symplectic_euler", 1), ("leapfrog", 2), ("yoshida4", 4)])
def test_order_of_convergence(method, order, x64):
    q, p = random_state()
    hamiltonian = dynamics.separable(lopsided)

    def endpoint(steps, method):
        z = dynamics.integrate(hamiltonian, q, p, step_size=1.0 / steps, num_steps=steps, method=method)
        return np.stack(z)

    exact = endpoint(4096, "yoshida4")
    steps = np.array([32, 64, 128, 256])
    errors = [np.abs(endpoint(n, method) - exact).max() for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert order - 0.1 < slope < order + 0.1


def test_energy_error_is_second_order_and_bounded_over_a_long_time(x64):
    q, p = random_state()
    hamiltonian = dynamics.separable(lopsided)
    step = jax.jit(dynamics.stepper(hamiltonian, "leapfrog"))

    def largest_error(dt, steps):
        def body(z, _):
            z = step(*z, dt)
            return z, jnp.abs(hamiltonian(*z) - hamiltonian(q, p)).max()

        return jax.lax.scan(body, (q, p), length=steps)[1]

    coarse, fine = largest_error(0.1, 20_000), largest_error(0.05, 40_000)
    assert coarse[10_000:].max() < 1.5 * coarse[:10_000].max()  # bounded, not drifting
    assert 3.5 < coarse.max() / fine.max() < 4.5


def test_integrate_agrees_with_leapfrog_on_separable_energies(x64):
    q, p = random_state()
    fast = dynamics.leapfrog(grad_of(random_mlp), q, p, step_size=-0.2, num_steps=4)
    slow = dynamics.integrate(dynamics.separable(random_mlp), q, p, step_size=-0.2, num_steps=4, method="leapfrog")
    np.testing.assert_allclose(np.stack(fast), np.stack(slow), atol=1e-14)


@pytest.mark.parametrize("method", ["leapfrog", "euler"])
def test_pendulum_goldens(goldens, method, x64):
    golden = goldens("physics")
    hamiltonian = dynamics.separable(lambda q: (1 - jnp.cos(q)).sum(-1))
    q, p = jnp.asarray(golden["q0"]), jnp.asarray(golden["p0"])
    for i in range(11):
        np.testing.assert_allclose(q, golden[f"{method}/q"][i], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(p, golden[f"{method}/p"][i], rtol=1e-9, atol=1e-9)
        q, p = dynamics.integrate(hamiltonian, q, p, step_size=0.1, num_steps=25, method=method)


@pytest.mark.parametrize("steps", [0, 1])
def test_zero_steps_are_the_identity(steps):
    q, p = random_state(dtype=np.float32)
    same = jnp.array_equal(dynamics.leapfrog(lambda q: q, q, p, step_size=0.1, num_steps=steps)[0], q)
    assert bool(same) == (steps == 0)


def test_bad_arguments_are_named():
    q, p = random_state(dtype=np.float32)
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(2, 4\)"):
        dynamics.leapfrog(lambda q: q, q, p[:2], step_size=0.1, num_steps=1)
    with pytest.raises(ValueError, match="num_steps"):
        dynamics.leapfrog(lambda q: q, q, p, step_size=0.1, num_steps=-1)
    with pytest.raises(ValueError, match="midpoint"):
        dynamics.integrate(dynamics.quadratic, q, p, step_size=0.1, num_steps=1, method="midpoint")
    with pytest.raises(ValueError, match="even last axis"):
        dynamics.symplectic_defect(lambda z, direction: z, jnp.ones(3))


@pytest.mark.parametrize("method", dynamics.METHODS)
def test_each_step_may_have_a_size_of_its_own_and_size_zero_moves_nothing(method, x64):
    h, z = dynamics.separable(lopsided), random_state()
    sizes = (0.1, 0.0, -0.05, 0.2)
    got = dynamics.integrate(h, *z, step_size=jnp.array(sizes), num_steps=4, method=method)
    want = z
    for size in sizes:
        if size:
            want = dynamics.integrate(h, *want, step_size=size, num_steps=1, method=method)
    np.testing.assert_allclose(got, want, rtol=1e-13)
    if method == "leapfrog":
        got = dynamics.leapfrog(grad_of(lopsided), *z, step_size=jnp.array(sizes), num_steps=4)
        np.testing.assert_allclose(got, want, rtol=1e-13)
    with pytest.raises(ValueError, match=r"3 steps.*\(4,\)"):
        dynamics.integrate(h, *z, step_size=jnp.array(sizes), num_steps=3, method=method)
