"""Logistic regression against scikit-learn's, and its choice of the penalty."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from hamjepa_jax.evaluation import logistic

RNG = np.random.default_rng(0)
CENTRES = RNG.standard_normal((4, 6))


def clusters(n, scatter=1.0):
    labels = np.arange(n) % 4
    return (CENTRES[labels] + scatter * RNG.standard_normal((n, 6))).astype(np.float32), labels


@pytest.mark.parametrize("penalty", [1.0, 1e-2])
def test_the_minimum_is_scikit_learns(penalty):
    x, y = clusters(120)
    start = np.zeros((6, 4), np.float32), np.zeros(4, np.float32)
    weights, bias = logistic.fit(x, y, np.ones(120, np.float32), penalty, start)
    theirs = LogisticRegression(C=1 / (penalty * 120), tol=1e-8, max_iter=2000).fit(x, y)
    assert_allclose(weights.T, theirs.coef_, atol=2e-3)
    assert_allclose(bias - bias.mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=2e-3)


def test_examples_that_do_not_count_have_no_part():
    x, y = clusters(80)
    start = np.zeros((6, 4), np.float32), np.zeros(4, np.float32)
    counted = (np.arange(80) < 60).astype(np.float32)
    masked, alone = logistic.fit(x, y, counted, 0.1, start), logistic.fit(x[:60], y[:60], counted[:60], 0.1, start)
    assert_allclose(masked[0], alone[0], atol=1e-4)


def test_the_penalty_is_chosen_on_training_examples_and_the_fit_is_deterministic():
    (x, y), (test_x, test_y) = clusters(80, 2.0), clusters(200, 2.0)
    found = logistic.logistic_regression(x, y, test_x, test_y, num_classes=4, seed=0)
    assert found == logistic.logistic_regression(x, y, test_x, test_y, num_classes=4, seed=0)
    assert 0.4 < found.top1 <= found.top5 == 1.0 and found.penalty in logistic.PENALTIES
    shuffled = logistic.logistic_regression(x, y, test_x, test_y[::-1].copy(), num_classes=4, seed=0)
    assert shuffled.penalty == found.penalty  # Test labels have no part in it.
    one_each = logistic.logistic_regression(x[:4], y[:4], test_x, test_y, num_classes=4, seed=0)
    assert one_each.penalty == logistic.WITHOUT_CHOICE
    with pytest.raises(ValueError, match="penalties must be"):
        logistic.logistic_regression(x, y, test_x, test_y, num_classes=4, seed=0, penalties=())


def test_a_fifth_of_every_class_is_held_out():
    labels = np.repeat([0, 1, 2], [1, 2, 50])
    rows = logistic.held_out_rows(labels, seed=0)
    assert [int(rows[labels == c].sum()) for c in range(3)] == [0, 1, 10]
    assert not np.array_equal(rows, logistic.held_out_rows(labels, seed=1))
