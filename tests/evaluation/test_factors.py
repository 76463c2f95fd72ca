"""Probes of factors: each finds what it can find, and nothing is found in noise."""

import numpy as np
import pytest

from hamjepa_jax.evaluation.factors import Values, factor_scores, r_squared

TRAIN, TEST = 2000, 500


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).normal(size=(TRAIN + TEST, 8)).astype(np.float32)


def scores(features, values, kind):
    split = Values(values[:TRAIN], values[TRAIN:], kind)
    return factor_scores(features[:TRAIN], features[TRAIN:], {"f": split}).get("f")


def test_a_linear_factor_is_found_by_both_probes(features):
    found = scores(features, features @ np.arange(8.0) + 3, "linear")
    assert found["ridge"] > 0.999 and found["mlp"] > 0.95


def test_a_nonlinear_factor_is_found_by_the_mlp_alone(features):
    found = scores(features, features[:, 0] * features[:, 1], "linear")
    assert abs(found["ridge"]) < 0.1 and found["mlp"] > 0.6


@pytest.mark.parametrize("kind", ["linear", "periodic", "categorical"])
def test_nothing_is_found_in_noise(features, kind):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 10, len(features)) if kind == "categorical" else rng.random(len(features))
    chance = 0.1 if kind == "categorical" else 0.0
    for score in scores(features, values, kind).values():
        assert chance - 0.15 < score < chance + 0.1


def test_a_periodic_factor_has_no_seam(features):
    """An angle that features hold as sine and cosine: as a number it jumps at 0, which no line follows."""
    angle = np.random.default_rng(2).random(len(features))
    held = np.stack([np.sin(2 * np.pi * angle), np.cos(2 * np.pi * angle)], axis=1)
    assert scores(held, angle, "periodic")["ridge"] > 0.999
    assert scores(held, (angle + 0.5) % 1, "periodic")["ridge"] > 0.999
    assert scores(held, angle, "linear")["ridge"] < 0.8


def test_classes_are_scored_by_accuracy_and_need_not_be_linear(features):
    signs = (features[:, :2] > 0).astype(int)
    assert scores(features, signs[:, 0], "categorical")["ridge"] > 0.9
    parity = scores(features, signs.sum(axis=1) % 2, "categorical")
    assert parity["ridge"] < 0.6 and parity["mlp"] > 0.8
    assert scores(features, signs, "categorical")["ridge"] > 0.9  # Two at once: the mean of both.


def test_examples_that_do_not_show_a_factor_are_left_out(features):
    values = features[:, 0].copy()
    values[::3] = np.nan
    assert scores(features, values, "linear")["ridge"] > 0.999
    assert scores(features, np.where(np.arange(len(values)) < 5, values, np.nan), "linear") is None


def test_the_penalty_is_chosen_without_the_test_examples(features):
    """Random features as many as examples: only a large penalty does no harm."""
    rng = np.random.default_rng(3)
    many, values = rng.normal(size=(400, 250)), rng.normal(size=400)
    found = factor_scores(many[:300], many[300:], {"f": Values(values[:300], values[300:], "linear")})
    assert -0.1 < found["f"]["ridge"] < 0.1
    # Test values of another world change neither the penalty nor the fit, only the score.
    shifted = factor_scores(many[:300], many[300:], {"f": Values(values[:300], values[300:] + 100, "linear")})
    assert shifted["f"]["ridge"] < -10


def test_the_score():
    y = np.asarray([[0.0, 1.0], [2.0, 1.0]])
    assert r_squared(y, y) == 1 and r_squared(y, np.ones((2, 2))) == 0 and r_squared(y, -y) < 0


def test_shapes_that_do_not_fit_are_named(features):
    with pytest.raises(ValueError, match="factor 'f' does not fit"):
        factor_scores(features[:10], features[10:], {"f": Values(np.zeros(9), np.zeros(9), "linear")})
