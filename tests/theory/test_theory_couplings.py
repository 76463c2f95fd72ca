"""Marginals do not identify the coupling: equal laws of each view, different predictors, exact errors."""

import numpy as np
import pytest

from hamjepa_jax import dynamics, theory

SIGMA = np.array([[2.0, 0.5, 0.0, 0.1], [0.5, 1.0, 0.2, 0.0], [0.0, 0.2, 0.5, 0.0], [0.1, 0.0, 0.0, 0.3]])


def orthogonals():
    rng = np.random.default_rng(0)
    return [np.eye(4), theory.quarter_turn(4), np.linalg.qr(rng.normal(size=(4, 4)))[0]]


def test_every_coupling_has_the_same_marginals():
    for o in orthogonals():
        a = theory.optimal_predictor(SIGMA, o)
        np.testing.assert_allclose(a @ SIGMA @ a.T, SIGMA, atol=1e-12)
        joint = theory.joint_covariance(SIGMA, o)
        np.testing.assert_allclose(joint[:4, :4], SIGMA)
        np.testing.assert_allclose(joint[4:, 4:], SIGMA)
        assert np.linalg.eigvalsh(joint)[0] > -1e-12


def test_the_predictor_is_the_regression_of_the_joint_law():
    for o in orthogonals():
        joint = theory.joint_covariance(SIGMA, o)
        regression = joint[4:, :4] @ np.linalg.inv(joint[:4, :4])
        np.testing.assert_allclose(theory.optimal_predictor(SIGMA, o), regression, atol=1e-12)


def test_cross_errors_are_what_samples_show():
    errors = theory.cross_errors(SIGMA, orthogonals())
    np.testing.assert_allclose(np.diag(errors), 0.0, atol=1e-12)
    z_a = np.random.default_rng(1).multivariate_normal(np.zeros(4), SIGMA, 200_000)
    for i, mine in enumerate(orthogonals()):
        for j, true in enumerate(orthogonals()):
            z_b = z_a @ theory.optimal_predictor(SIGMA, true).T
            predicted = z_a @ theory.optimal_predictor(SIGMA, mine).T
            np.testing.assert_allclose(
                np.square(predicted - z_b).sum(-1).mean(), errors[i, j], rtol=0.02, atol=1e-9
            )


def test_the_wrong_predictor_costs_more_than_none():
    errors = theory.cross_errors(SIGMA, [np.eye(4), theory.quarter_turn(4), -np.eye(4)])
    trace = np.trace(SIGMA)
    np.testing.assert_allclose(errors[0, 1], 2 * trace)  # a turn by 90° is uncorrelated with staying
    np.testing.assert_allclose(errors[0, 2], 4 * trace)
    np.testing.assert_allclose(errors, errors.T, atol=1e-12)


def test_a_quarter_turn_is_orthogonal_and_symplectic(x64):
    turn = theory.quarter_turn(6)
    np.testing.assert_array_equal(turn @ turn, -np.eye(6))
    singular = dynamics.singular_values(lambda z, direction: z @ turn.T, np.ones(6))
    np.testing.assert_allclose(singular, 1.0)
    assert dynamics.symplectic_defect(lambda z, direction: z @ turn.T, np.ones(6)) == 0


def test_singular_values_of_a_symplectic_predictor_pair(x64):
    # Not an orthogonal one: a shear times a stretch.
    shear = np.block([[np.eye(2), np.array([[0.3, 0.7], [0.7, -1.0]])], [np.zeros((2, 2)), np.eye(2)]])
    stretch = np.diag([3.0, 0.5, 1 / 3.0, 2.0])
    matrix = shear @ stretch
    singular = np.asarray(dynamics.singular_values(lambda z, direction: z @ matrix.T, np.ones(4)))
    np.testing.assert_allclose(singular * singular[::-1], 1.0, rtol=1e-12)
    assert singular[0] > 3


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: theory.optimal_predictor(np.eye(2), 2 * np.eye(2)), "orthogonal"),
        (lambda: theory.optimal_predictor(np.eye(2), np.eye(3)), "one size"),
        (lambda: theory.optimal_predictor(np.diag([1.0, 0.0]), np.eye(2)), "positive definite"),
        (lambda: theory.quarter_turn(3), "even"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
