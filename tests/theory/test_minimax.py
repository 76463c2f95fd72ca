"""Minimax, price of isotropy, misalignment and worst geometries, against searches and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hamjepa_jax import theory

D, BUDGET = 5, 3.0


def random_spd(rng, d=D, spread=2.0):
    vectors = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (vectors * np.exp(rng.uniform(-spread, spread, d))) @ vectors.T


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_no_feasible_covariance_beats_the_minimax_one(rng):
    H = random_spd(rng)
    best = theory.minimax_covariance(H, BUDGET)
    np.testing.assert_allclose(np.trace(H @ best), BUDGET)
    value = theory.worst_case_variance(best, H)
    np.testing.assert_allclose(value, BUDGET / D)
    others = [random_spd(rng, spread=s) for s in (0.1, 1.0, 3.0) for _ in range(1000)]
    noise = 0.01 * rng.normal(size=(1000, D, D))
    near = [best + n + n.T for n in noise]
    for sigma in others + [s for s in near if np.linalg.eigvalsh(s)[0] > 0]:
        sigma = sigma * BUDGET / np.trace(H @ sigma)
        assert theory.worst_case_variance(sigma, H) >= value * (1 - 1e-12)


def test_optimisation_from_a_random_start_finds_the_minimax_covariance(rng, x64):
    H = jnp.asarray(random_spd(rng))
    root = jnp.linalg.cholesky(H)

    def covariance(factor):
        sigma = factor @ factor.T
        return sigma * BUDGET / jnp.trace(H @ sigma)

    def worst(factor):  # Hᵀ-similar to H^{1/2}ΣH^{1/2}; smoothed so that descent does not stick at a kink
        return jax.nn.logsumexp(200 * jnp.linalg.eigvalsh(root.T @ covariance(factor) @ root)) / 200

    factor = jnp.asarray(rng.normal(size=(D, D)))
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, 1500))

    def step(carry, _):
        factor, state = carry
        updates, state = optimiser.update(jax.grad(worst)(factor), state)
        return (factor + updates, state), None

    (factor, _), _ = jax.lax.scan(step, (factor, optimiser.init(factor)), length=1500)
    np.testing.assert_allclose(covariance(factor), theory.minimax_covariance(H, BUDGET), rtol=1e-3, atol=1e-3)


def test_worst_task_is_feasible_attains_the_value_and_is_not_beaten(rng):
    H, sigma = random_spd(rng), random_spd(rng)
    value, w = theory.worst_case_variance(sigma, H), theory.worst_task_direction(sigma, H)
    np.testing.assert_allclose(w @ np.linalg.inv(H) @ w, 1.0)
    np.testing.assert_allclose(w @ sigma @ w, value)
    tasks = rng.normal(size=(20_000, D))
    tasks /= np.sqrt(np.einsum("ni,ij,nj->n", tasks, np.linalg.inv(H), tasks))[:, None]
    variances = np.einsum("ni,ij,nj->n", tasks, sigma, tasks)
    assert 0.8 * value < variances.max() <= value * (1 + 1e-12)


@pytest.mark.parametrize("c", [0.5, 4.0])
def test_price_of_isotropy_is_the_ratio_of_worst_cases(c, rng):
    for _ in range(200):
        H = random_spd(rng, spread=rng.uniform(0.0, 4.0))
        isotropic, best = theory.isotropic_covariance(H, c), theory.minimax_covariance(H, c)
        np.testing.assert_allclose(np.trace(H @ isotropic), c)
        price = theory.price_of_isotropy(H)
        ratio = theory.worst_case_variance(isotropic, H) / theory.worst_case_variance(best, H)
        np.testing.assert_allclose(ratio, price, rtol=1e-10)
        assert 1 <= price <= D
        np.testing.assert_allclose(theory.misalignment(isotropic, H), price, rtol=1e-10)


def test_price_is_one_for_multiples_of_the_identity_only(rng):
    np.testing.assert_allclose(theory.price_of_isotropy(7.0 * np.eye(D)), 1.0, rtol=1e-14)
    bent = np.eye(D)
    bent[0, 1] = bent[1, 0] = 1e-3
    assert theory.price_of_isotropy(bent) > 1 + 1e-4
    assert theory.price_of_isotropy(np.diag([1e9, 1, 1, 1, 1.0])) > D - 1e-6


def test_misalignment_is_one_exactly_at_the_inverse(rng):
    H = random_spd(rng)
    np.testing.assert_allclose(theory.misalignment(0.1 * np.linalg.inv(H), H), 1.0, rtol=1e-10)
    assert theory.misalignment(np.linalg.inv(H) + 0.1 * np.eye(D), H) > 1.001


def test_any_concentrating_geometry_drives_the_misalignment_to_d(rng):
    sigma, direction = random_spd(rng), rng.normal(size=D)
    gaps = []
    for weight in (1e2, 1e4, 1e6):
        gaps.append(D - theory.misalignment(sigma, np.eye(D) + weight * np.outer(direction, direction)))
    assert all(g > 0 for g in gaps)  # a supremum that is not attained
    np.testing.assert_allclose(gaps[1] / gaps[2], 100, rtol=0.01)  # the gap closes like the reciprocal weight


@pytest.mark.parametrize("condition", [1.0, 3.0, 100.0])
def test_worst_geometry_is_feasible_attains_its_value_and_is_not_beaten(condition, rng):
    for d in (2, 5):
        sigma = random_spd(rng, d)
        H, value = theory.worst_geometry(sigma, condition)
        assert np.linalg.cond(H) <= condition * (1 + 1e-9)
        np.testing.assert_allclose(theory.misalignment(sigma, H), value, rtol=1e-10)
        for _ in range(1500):
            vectors = np.linalg.qr(rng.normal(size=(d, d)))[0]
            corners = np.where(rng.random(d) < 0.5, 1.0, condition)  # the optimum has eigenvalues 1 and κ only
            inside = np.exp(rng.uniform(0.0, np.log(condition), d))
            for eigenvalues in (corners, inside):
                assert theory.misalignment(sigma, (vectors * eigenvalues) @ vectors.T) <= value * (1 + 1e-9)


def test_gradient_ascent_over_bounded_geometries_reaches_the_worst_value(rng, x64):
    condition, sigma = 20.0, random_spd(rng)
    root = jnp.linalg.cholesky(jnp.asarray(sigma))
    _, value = theory.worst_geometry(sigma, condition)

    def badness(parameters):
        vectors, logits = parameters
        vectors = jnp.linalg.qr(vectors)[0]
        eigenvalues = jnp.exp(jnp.log(condition) * jax.nn.sigmoid(logits))  # in (1, κ)
        H = (vectors * eigenvalues[None, :]) @ vectors.T
        spectrum = jnp.linalg.eigvalsh(root.T @ H @ root)
        return D * spectrum[-1] / spectrum.sum()

    optimiser = optax.adam(0.05)

    def step(carry, _):
        parameters, state = carry
        gradients = jax.tree.map(jnp.negative, jax.grad(badness)(parameters))
        updates, state = optimiser.update(gradients, state)
        return (optax.apply_updates(parameters, updates), state), badness(parameters)

    starts = [(jnp.asarray(rng.normal(size=(D, D))), jnp.asarray(rng.normal(size=D))) for _ in range(4)]
    climb = jax.jit(lambda start: jax.lax.scan(step, (start, optimiser.init(start)), length=800)[1])
    reached = np.array([climb(s).max() for s in starts])
    assert reached.max() <= value * (1 + 1e-9)
    assert reached.max() > 0.99 * value


def test_worst_misalignment_of_the_isotropic_covariance():
    # Σ = I: d·κ/(κ + d − 1).
    assert theory.worst_geometry(np.eye(4), 7.0)[1] == pytest.approx(4 * 7 / (7 + 3))
    assert theory.worst_geometry(np.eye(4), 1e12)[1] == pytest.approx(4.0)


def test_gibbs_law_of_the_quadratic_lift_by_quadrature():
    # d = 1: moments of exp(−β(½Hq² + ½p²)) on a grid. d = 2: of the q factor.
    H, c = 2.5, 0.7
    x = np.linspace(-8, 8, 801)
    q, p = np.meshgrid(x, x, indexing="ij")
    weight = np.exp(-(1 / c) * (0.5 * H * q * q + 0.5 * p * p))
    weight /= weight.sum()
    sigma_q, sigma_p = theory.gibbs_covariances([[H]], c)
    np.testing.assert_allclose([(weight * q * q).sum(), (weight * p * p).sum()], [sigma_q[0, 0], sigma_p[0, 0]])
    assert abs((weight * q * p).sum()) < 1e-12

    H = np.array([[2.0, 0.9], [0.9, 1.0]])
    z = np.stack([q, p], axis=-1)
    weight = np.exp(-(2 / c) * 0.5 * np.einsum("mni,ij,mnj->mn", z, H, z))
    moments = np.einsum("mn,mni,mnj->ij", weight / weight.sum(), z, z)
    np.testing.assert_allclose(theory.gibbs_covariances(H, c)[0], moments, rtol=1e-8)
    np.testing.assert_allclose(theory.gibbs_covariances(H, c)[0], theory.minimax_covariance(H, c))


def test_the_minimax_gaussian_has_the_largest_entropy_at_its_budget(rng):
    H = random_spd(rng)
    best = theory.gaussian_entropy(theory.minimax_covariance(H, BUDGET))
    # With x = H^{-1/2}y the budget reads E‖y‖² = c and entropies shift by ½·logdet H: independent coordinates of
    # variance c/d, whose entropies are known in closed form.
    shift = 0.5 * np.linalg.slogdet(H)[1]
    variance = BUDGET / D
    uniform = 0.5 * np.log(12 * variance)
    laplace = 1 + 0.5 * np.log(2 * variance)
    logistic = 2 + 0.5 * np.log(3 * variance / np.pi**2)
    for entropy in (uniform, laplace, logistic):
        assert D * entropy - shift < best - 0.01
    np.testing.assert_allclose(D * 0.5 * np.log(2 * np.pi * np.e * variance) - shift, best)
    for _ in range(500):  # Gaussians of other covariances
        sigma = random_spd(rng)
        assert theory.gaussian_entropy(sigma * BUDGET / np.trace(H @ sigma)) < best


def test_jax_arrays_in_float32_are_fine(rng):
    H = random_spd(rng)
    np.testing.assert_allclose(
        theory.minimax_covariance(jnp.asarray(H, jnp.float32), BUDGET), theory.minimax_covariance(H, BUDGET),
        rtol=1e-4, atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.minimax_covariance(np.diag([1.0, -1.0]), 1.0), "H must be positive definite"),
        (lambda: theory.price_of_isotropy(np.diag([1.0, 0.0])), "H must be positive definite"),
        (lambda: theory.price_of_isotropy(np.ones((2, 3))), r"square.*\(2, 3\)"),
        (lambda: theory.price_of_isotropy([[1.0, 0.5], [0.1, 1.0]]), "symmetric"),
        (lambda: theory.price_of_isotropy([[np.nan]]), "nan"),
        (lambda: theory.minimax_covariance(np.eye(2), -1.0), "budget c must be positive.*-1"),
        (lambda: theory.isotropic_covariance(np.eye(2), 0.0), "budget c must be positive"),
        (lambda: theory.worst_case_variance(np.eye(2), np.eye(3)), r"one size.*\(2, 2\).*\(3, 3\)"),
        (lambda: theory.misalignment(np.diag([1.0, -0.5]), np.eye(2)), "sigma must be a covariance"),
        (lambda: theory.misalignment(np.zeros((2, 2)), np.eye(2)), "not zero"),
        (lambda: theory.worst_geometry(np.eye(2), 0.5), "condition number.*at least 1, got 0.5"),
        (lambda: theory.gaussian_entropy(np.diag([1.0, 0.0])), "sigma must be positive definite"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
