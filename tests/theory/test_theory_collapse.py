"""Each penalty alone accepts a collapse; two together bound the smallest eigenvalue."""

import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax import objectives, theory

FLOORS = dict(target=1.0, logdet_floor=-1.5)
PR_FLOOR = 0.3


@pytest.mark.parametrize("tiny", [1e-2, 1e-6])
def test_each_single_penalty_accepts_its_collapse_and_the_others_refuse_it(tiny):
    d = 8
    examples = theory.collapse_examples(d, **FLOORS, tiny=tiny)
    for blind, sigma in examples.items():
        values = theory.penalties(sigma, **FLOORS, pr_floor=PR_FLOOR)
        assert values.pop(blind) < 1e-9
        assert max(values.values()) > 0.01
        np.testing.assert_allclose(np.linalg.eigvalsh(sigma)[0], tiny, rtol=1e-6)  # it has collapsed


def test_a_healthy_covariance_passes_all_three():
    values = theory.penalties(np.diag([1.6, 1.2, 0.8, 0.4]), **FLOORS, pr_floor=PR_FLOOR)
    assert max(values.values()) < 1e-12


def batch_with_covariance(sigma, n=4096):
    # Exactly centred and whitened, then coloured, so that the biased covariance is sigma up to float32.
    x = np.random.default_rng(0).normal(size=(n, len(sigma)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / (n - 1))).T
    return x @ np.sqrt(sigma)  # diagonal sigma


def test_the_training_objectives_are_fooled_the_same_way():
    d = 8
    examples = theory.collapse_examples(d, **FLOORS, tiny=1e-2)
    identity = jnp.eye(d)
    off = dict(floor=None, pr_floor=None, eigmax_ceiling=None, eps=0.0)

    def losses(sigma):
        x = jnp.asarray(batch_with_covariance(sigma), jnp.float32)
        both_halves = jnp.concatenate([x, x], axis=-1)
        return {
            "scale budget": objectives.energy_budget(both_halves, q_target=1.0, p_target=1.0),
            "log-det floor": objectives.logdet_floor(x, identity, **{**off, "floor": -1.5})[0],
            "participation-ratio floor": objectives.logdet_floor(x, identity, **{**off, "pr_floor": PR_FLOOR})[0],
        }

    for blind, sigma in examples.items():
        values = losses(sigma)
        assert values.pop(blind) < 1e-4, blind
        assert max(values.values()) > 0.01, blind


def test_log_det_and_trace_bound_the_smallest_eigenvalue():
    k, tau, m = 6, -1.0, 6.0
    bound = theory.smallest_eigenvalue_bound(k, logdet_floor=tau, trace_ceiling=m)
    # Attained: the others equal, both constraints active.
    others = np.full(k - 1, (m - bound) / (k - 1))
    np.testing.assert_allclose(np.log(bound) + np.log(others).sum(), k * tau, rtol=1e-10)
    assert bound > np.exp(k * tau) * ((k - 1) / m) ** (k - 1)  # the cruder bound
    rng, smallest = np.random.default_rng(0), []
    for _ in range(20_000):  # random feasible spectra, many of them close to the extreme one
        eigenvalues = np.r_[bound * np.exp(rng.exponential(0.3)), others * np.exp(rng.normal(0, 0.1, k - 1))]
        eigenvalues *= min(1.0, m / eigenvalues.sum())
        if np.log(eigenvalues).sum() >= k * tau:
            smallest.append(eigenvalues.min())
    assert len(smallest) > 100
    assert bound * (1 - 1e-9) <= min(smallest) < 1.5 * bound


def test_closed_forms_equal_the_training_objectives_on_a_batch():
    sigma, identity = np.diag([5.0, 0.02, 0.01, 0.02]), jnp.eye(4)  # violates all three
    closed = theory.penalties(sigma, **FLOORS, pr_floor=0.6)
    x = jnp.asarray(batch_with_covariance(sigma), jnp.float32)
    off = dict(eigmax_ceiling=None, eps=0.0)
    budget = objectives.energy_budget(jnp.concatenate([x, x], axis=-1), q_target=1.0, p_target=1.0)
    logdet, _ = objectives.logdet_floor(x, identity, floor=-1.5, pr_floor=None, **off)
    pr, _ = objectives.logdet_floor(x, identity, floor=None, pr_floor=0.6, **off)
    assert min(closed.values()) > 0.01
    np.testing.assert_allclose(list(closed.values()), [budget / 2, logdet, pr], rtol=5e-3)


@pytest.mark.parametrize("k, m", [(1, 2.0), (4, 4.0), (9, 2.5)])
def test_the_bound_at_its_ends(k, m):
    top = np.log(m / k)
    np.testing.assert_allclose(
        theory.smallest_eigenvalue_bound(k, logdet_floor=top, trace_ceiling=m), m / k, rtol=1e-5
    )
    loose = theory.smallest_eigenvalue_bound(k, logdet_floor=top - 2.0, trace_ceiling=m)
    assert 0 < loose < m / k


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.smallest_eigenvalue_bound(4, logdet_floor=0.1, trace_ceiling=4.0), "no .4, 4. covariance"),
        (lambda: theory.smallest_eigenvalue_bound(0, logdet_floor=0.0, trace_ceiling=4.0), "k >= 1"),
        (lambda: theory.collapse_examples(1, **FLOORS, tiny=0.1), "at least two"),
        (lambda: theory.collapse_examples(3, **FLOORS, tiny=0.0), "0, 1"),
        (lambda: theory.penalties(np.diag([1.0, -1.0]), **FLOORS, pr_floor=0.1), "covariance"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
