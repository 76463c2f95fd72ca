import json

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import golden_random
from numpy.testing import assert_allclose

from hamjepa_jax import evaluation


def features(n, d, seed=0):
    """Correlated, off-centre, unequal scales: nothing about it is symmetric."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 3 * rng.standard_normal(d)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
def test_published_geometry_is_reproduced(goldens, as_array):
    g = goldens("evaluation")
    train, test = as_array(g["Xtr"]), as_array(g["Xte"])
    for top in (16, 40):
        spectrum = evaluation.covariance_spectrum(train, top)
        assert_allclose(spectrum, g[f"spectrum/exact_top{top}"], rtol=2e-6)
        assert_allclose(evaluation.effective_rank(spectrum), g[f"spectrum/eff_rank_top{top}"], rtol=1e-6)
        assert_allclose(evaluation.participation_ratio(spectrum), g[f"spectrum/pr_top{top}"], rtol=1e-6)
    summary = evaluation.summary_statistics(evaluation.norms(test))
    for name, value in json.loads(str(g["norms"])).items():
        assert_allclose(summary[name], value, rtol=1e-6)
    second = g["Xte"] + 0.3 * golden_random(str(g["align/z2_noise_name"]), *g["Xte"].shape)
    assert_allclose(evaluation.alignment(test, as_array(second)), g["align/alignment"], rtol=1e-5)
    assert_allclose(evaluation.uniformity(test), g["align/uniformity_all_pairs_z1"], atol=1e-6)


def test_random_pairs_estimate_the_exact_cosine_distribution(goldens):
    g = goldens("evaluation")
    cosines = evaluation.random_pair_cosines(g["Xte"], num_pairs=20_000, seed=0)
    assert cosines.shape == (20_000,)
    # 20,000 pairs of 500 examples: standard error 0.168 / √20000 = 0.0012; four of them.
    assert abs(cosines.mean() - g["cosine/exact_mean"]) < 0.005
    assert abs(cosines.std() - g["cosine/exact_std"]) < 0.005
    assert (cosines == evaluation.random_pair_cosines(g["Xte"], num_pairs=20_000, seed=0)).all()
    assert (cosines != evaluation.random_pair_cosines(g["Xte"], num_pairs=20_000, seed=1)).any()


def test_a_pair_never_is_an_example_with_itself():
    cosines = evaluation.random_pair_cosines(np.eye(3), num_pairs=3000, seed=0)
    assert cosines.max() == 0.0
    two = evaluation.random_pair_cosines(np.array([[1.0, 0.0], [0.6, 0.8]]), num_pairs=10, seed=0)
    assert_allclose(two, 0.6)


@pytest.mark.parametrize("shape", [(50, 7), (7, 50), (8, 8), (2, 5)])
def test_spectrum_equals_the_eigenvalues_of_the_covariance(shape):
    x = features(*shape)
    expected = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    found = evaluation.covariance_spectrum(x, 1000)
    assert found.shape == (shape[1],)
    assert_allclose(found, expected, atol=1e-12 * expected[0])
    assert_allclose(evaluation.covariance_spectrum(x, 3), expected[:3], atol=1e-12 * expected[0])


def test_ranks_count_directions():
    equal = np.full(6, 0.3)
    assert_allclose([evaluation.effective_rank(equal), evaluation.participation_ratio(equal)], 6.0)
    one = [2.0, 0.0, -1e-17]
    assert_allclose([evaluation.effective_rank(one), evaluation.participation_ratio(one)], 1.0)
    p = np.array([0.5, 0.3, 0.2])
    assert_allclose(evaluation.effective_rank(7 * p), np.exp(-(p * np.log(p)).sum()))
    assert_allclose(evaluation.participation_ratio(jnp.asarray(7 * p)), 1 / 0.38, rtol=1e-6)
    assert evaluation.effective_rank(np.zeros(4)) == evaluation.participation_ratio(np.zeros(4)) == 0.0


def test_uniformity_of_any_chunking_equals_the_double_sum():
    x = features(61, 5)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    terms = [np.exp(-2 * np.sum((unit[i] - unit[j]) ** 2)) for i in range(61) for j in range(i)]
    for chunk in (1, 7, 61, 1000):
        assert_allclose(evaluation.uniformity(x, chunk=chunk), np.log(np.mean(terms)), atol=1e-6)
    assert evaluation.uniformity(np.ones((5, 3))) == pytest.approx(0.0, abs=1e-6)


def test_alignment_ignores_scale_and_knows_its_extremes():
    x = features(20, 4)
    assert evaluation.alignment(x, 5 * x) == pytest.approx(0.0, abs=1e-12)
    assert evaluation.alignment(x, -x) == pytest.approx(4.0)


def test_impossible_requests_are_refused():
    x = features(5, 3)
    for function in (
        lambda: evaluation.covariance_spectrum(x[:1], 2),
        lambda: evaluation.uniformity(x[:1]),
        lambda: evaluation.random_pair_cosines(x[:1], num_pairs=4, seed=0),
    ):
        with pytest.raises(ValueError, match=r"\(1, 3\)"):
            function()
    with pytest.raises(ValueError, match=r"\(5, 3\) and \(5, 2\)"):
        evaluation.alignment(x, x[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        evaluation.covariance_spectrum(np.where(x > 3, np.nan, x), 2)
    with pytest.raises(ValueError, match="top"):
        evaluation.covariance_spectrum(x, 0)
    with pytest.raises(ValueError, match="finite eigenvalues"):
        evaluation.effective_rank([1.0, np.inf])
