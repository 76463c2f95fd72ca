"""Label-free measures against their papers' formulas, written again with NumPy's SVD, and against closed forms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from hamjepa_jax import evaluation, report
from hamjepa_jax.evaluate.results import LABEL_FREE_FILE, write_agreement
from hamjepa_jax.metrics import alpha_req, lidar, rankme, scores

RNG = np.random.default_rng(0)
N, D = 300, 40
RANDOM = RNG.standard_normal((N, D)) @ RNG.standard_normal((D, D)) + 3.0
DECAYING = RNG.standard_normal((N, D)) * np.arange(1, D + 1) ** -0.6
FEW = RNG.standard_normal((N, 3)) @ RNG.standard_normal((3, D))
FEATURES = {"random": RANDOM, "decaying": DECAYING, "three directions": FEW, "wide": RANDOM[:20]}


def measured(x, **more):
    labels = np.arange(len(x)) % 2
    found = evaluation.evaluate_features(
        x, labels, x, labels, num_classes=2, split=False, ks=(), probe=None, **more
    )
    return {key.removeprefix("z/"): value for key, value in found.items()}


def entropy_rank(p, eps=1e-7):
    """The papers' exp of an entropy, summed one by one."""
    p = [value / sum(p) + eps for value in p]
    return np.exp(-sum(value * np.log(value) for value in p))


@pytest.mark.parametrize("name", FEATURES)
def test_measures_equal_their_formulas(name):
    x = FEATURES[name]
    found = measured(x)
    assert_allclose(found["rankme"], entropy_rank(np.linalg.svd(x, compute_uv=False)), rtol=1e-5)
    centred = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    assert_allclose(found["stable_rank"], np.linalg.norm(centred) ** 2 / centred[0] ** 2, rtol=1e-9)
    variances = centred**2
    variances = variances[variances > 1e-12 * variances[0]]
    first = 10 if len(variances) >= 20 else 0
    j = np.arange(1, len(variances) + 1)[first:]
    slope, _ = np.polyfit(np.log(j), np.log(variances[first:]), 1, w=j**-0.5)
    assert_allclose(found["alpha_req_top100"], -slope, rtol=1e-6)


def test_orthonormal_features_have_full_rank_and_collapsed_ones_rank_one_or_none():
    orthonormal = np.concatenate([np.eye(D), -np.eye(D)])  # Centred, so that the stable rank is D as well.
    found = measured(orthonormal)
    assert_allclose([found["rankme"], found["stable_rank"]], D, rtol=1e-3)
    assert_allclose(found["alpha_req_top100"], 0.0, atol=1e-9)
    one = measured(np.outer(RNG.standard_normal(N), RNG.standard_normal(D)))
    assert_allclose([one["rankme"], one["stable_rank"]], 1.0, rtol=1e-3)
    assert one["alpha_req_top100"] == alpha_req.STEEPEST
    constant = measured(np.full((N, D), 2.0))
    assert_allclose(constant["rankme"], 1.0, rtol=1e-3)  # Not centred: the mean is one direction.
    assert constant["stable_rank"] == 0.0 and constant["alpha_req_top100"] == alpha_req.STEEPEST
    assert measured(np.zeros((N, D)))["rankme"] == 0.0


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("size", [15, 60, 256])
def test_the_exponent_of_a_power_law_is_recovered(alpha, size):
    assert_allclose(alpha_req.power_law(3.0 * np.arange(1.0, size + 1) ** -alpha), alpha, rtol=1e-9)


def test_rankme_is_neither_effective_rank():
    """Of eigenvalues λ = σ² the entropy is lower; without ε the singular values' is lower by 16·n·ε."""
    singular = np.arange(1.0, 1001.0) ** -0.7
    p = singular / singular.sum()
    roy_vetterli = np.exp(-np.sum(p * np.log(p)))
    assert_allclose(np.log(rankme.smooth_rank(singular) / roy_vetterli), 1e-7 * np.sum(-np.log(p) - 1), rtol=1e-2)
    assert evaluation.effective_rank(singular**2) < 0.5 * roy_vetterli


def lidar_reference(views, delta=1e-4):
    """Σ_w^−½ by its eigenvectors, and all eigenvalues of the product: the paper's formulas as they stand."""
    n, v, d = views.shape
    means, within = views.mean(axis=1), np.zeros((d, d))
    for of_image, mean in zip(views, means, strict=True):
        for z in of_image:
            within += np.outer(z - mean, z - mean) / (n * v)
    between = np.cov(means.T, bias=True)
    values, vectors = np.linalg.eigh(within + delta * np.eye(d))
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    return entropy_rank(np.maximum(np.linalg.eigvalsh(root @ between @ root), 0))


@pytest.mark.parametrize(("n", "v", "d"), [(60, 5, 12), (8, 3, 12), (40, 2, 3)])
def test_lidar_equals_its_formula(n, v, d):
    images = RNG.standard_normal((n, 1, d)) * np.arange(1, d + 1) ** -0.5
    views = images + 0.3 * RNG.standard_normal((n, v, d)) * np.linspace(0.1, 2, d)
    assert_allclose(lidar.lidar_rank(views), lidar_reference(views), rtol=1e-5)
    split = evaluation.evaluate_features(
        FEW, np.arange(N) % 2, FEW, np.arange(N) % 2, num_classes=2, split=True, ks=(), probe=None,
        surrogates=np.concatenate([views, -views[..., ::-1]], axis=2),
    )  # fmt: skip
    assert split[f"q/lidar_n{n}_v{v}"] == lidar.lidar_rank(views)


def test_lidar_counts_directions_that_tell_images_apart():
    n, d = 200, 6
    spread = RNG.standard_normal((n, d))
    spread -= spread.mean(axis=0)
    spread = np.linalg.svd(spread, full_matrices=False)[0][:, :d]  # Centred, orthonormal columns.
    scatter = np.stack([np.eye(d), -np.eye(d)]).reshape(-1, d)  # The same about every image, in all directions.
    full = spread[:, None] + 0.1 * scatter[None]
    assert_allclose(lidar.lidar_rank(full), d, rtol=1e-4)
    one = spread[:, None, :1] * np.ones(d) + 0.1 * scatter[None]
    assert_allclose(lidar.lidar_rank(one), 1.0, rtol=1e-3)
    # Directions in which images differ, but their views as much: a rank of features would count them.
    noisy = full + 0.0
    noisy[..., 1:] += 100 * RNG.standard_normal((n, len(scatter), d - 1))
    assert lidar.lidar_rank(noisy) < 2 < 4.9 < rankme.smooth_rank(rankme.singular_values(noisy.reshape(-1, d)))
    assert lidar.lidar_rank(np.tile(scatter, (n, 1, 1))) == 0.0  # Collapsed: all images alike.
    with pytest.raises(ValueError, match="two or more views"):
        lidar.lidar_rank(full[:, :1])


def points(*of_readout):
    return [
        {"q": {"knn_top1_k20_cosine_majority": a, "rankme": r, "alpha_req_top100": s}} for a, r, s in of_readout
    ]


def test_agreement_with_accuracy_ranks_measures_by_what_they_would_have_chosen():
    found = report.agreements(points((0.1, 5.0, 3.0), (0.2, 9.0, 1.1), (0.3, 8.0, 0.7), (0.25, 7.0, 1.6)))
    by_measure = {a.measure: a for a in found}
    r, alpha = by_measure["rankme"], by_measure["alpha_req_top100"]
    # Ranks of accuracy 1 2 4 3: of RankMe 1 4 3 2, of −|α − 1| 1 4 3 2.
    assert_allclose([r.spearman, r.kendall], [0.4, 1 / 3])
    assert (r.picked, r.best, r.points) == (0.2, 0.3, 4)
    assert_allclose(alpha.spearman, 0.4)
    assert alpha.picked == 0.2  # α = 1.1 is nearest to 1.
    assert report.agreements(points((0.1, 5.0, 3.0), (0.2, 9.0, 1.1))) == []
    assert set(scores()) == {"effective_rank", "participation_ratio", "rankme", "stable_rank", "alpha_req", "lidar"}


def test_the_table_over_checkpoints_is_read_from_the_log(tmp_path):
    history = [
        {"step": s, "epoch": s, "train/total": 1.0} | {f"eval/q/{key}": value for key, value in point["q"].items()}
        for s, point in enumerate(points((0.1, 1.0, 1.0), (0.2, 2.0, 1.0), (0.3, 3.0, 1.0)))
    ]
    text = report.label_free_text(report.checkpoints_of([{"step": 9, "train/total": 0.0}, *history]))
    assert "| q | rankme | kNN@20 | +1.00 | +1.00 | 30.00 | 30.00 | 3 |" in text
    assert "| q | alpha_req_top100 | kNN@20 | – | – | 10.00 | 30.00 | 3 |" in text
    write_agreement(tmp_path, report.checkpoints_of(history))
    assert (tmp_path / LABEL_FREE_FILE).read_text() == text
    assert report.label_free_text(report.checkpoints_of(history[:2])) == ""
