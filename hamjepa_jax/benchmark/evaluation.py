"""Times the evaluation of one readout against scikit-learn's kNN and logistic regression on the same features."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from hamjepa_jax.evaluation.protocol import KS, PROBE, evaluate_features


def benchmark_evaluation(train_size: int, test_size: int, dim: int, num_classes: int, epochs: int) -> str:
    """Times both on made-up features: correlated Gaussian clusters, so that accuracies mean something.

    Ours: kNN for seven k with top-1 and top-5, the linear probe and the geometry of one readout, compilation
    included. Scikit-learn's: brute-force cosine kNN at k = 20 alone, and LogisticRegression (L-BFGS, at most 100
    iterations) on standardised features.

    Args:
      train_size: training examples.
      test_size: test examples.
      dim: features of an example.
      num_classes: number of classes.
      epochs: of the linear probe.

    Returns:
      Lines with seconds and accuracies.
    """
    from sklearn.exceptions import ConvergenceWarning  # takes seconds to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    features = _clusters(train_size, test_size, dim, num_classes)
    train_x, train_y, test_x, test_y = features
    scaler = StandardScaler().fit(train_x)
    logistic = LogisticRegression(max_iter=100)
    neighbours = KNeighborsClassifier(20, algorithm="brute", metric="cosine", n_jobs=-1)

    def ours(**settings):
        return evaluate_features(*features, num_classes=num_classes, split=False, **settings)

    geometry, _ = _timed(lambda: ours(ks=(), probe=None))
    knn, knn_found = _timed(lambda: ours(ks=KS, probe=None))
    probe, probe_found = _timed(lambda: ours(ks=(), probe=PROBE | {"epochs": epochs}))
    knn, probe = knn - geometry, probe - geometry  # Geometry is part of each.
    their_knn, their_labels = _timed(lambda: neighbours.fit(train_x, train_y).predict(test_x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit, _ = _timed(lambda: logistic.fit(scaler.transform(train_x), train_y))

    probe_accuracy = next(value for key, value in probe_found.items() if "/probe_top1_" in key)
    iterations = int(np.max(logistic.n_iter_))
    rows = [
        ("kNN, k = 1 … 200, top-1 and top-5", knn, knn_found["z/knn_top1_k20_cosine_majority"]),
        (f"linear probe, {epochs} epochs", probe, probe_accuracy),
        ("geometry", geometry, None),
        ("whole evaluation", knn + probe + geometry, None),
        ("scikit-learn kNN, k = 20, brute cosine", their_knn, np.mean(their_labels == test_y)),
        (
            f"scikit-learn LogisticRegression, {iterations} iterations",
            fit,
            logistic.score(scaler.transform(test_x), test_y),
        ),
    ]
    device = jax.devices()[0].device_kind
    head = f"{train_size:,} + {test_size:,} features of {dim}, {num_classes} classes, on {device}"
    lines = [f"{name:<50} {s:8.1f} s" + ("" if a is None else f"{a:10.2%}") for name, s, a in rows]
    return "\n".join([head, *lines])


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def _clusters(train_size: int, test_size: int, dim: int, num_classes: int) -> tuple[np.ndarray, ...]:
    """Features and labels of both parts: a centre for each class under noise of six times its size.

    Mixed so that the covariance's eigenvalues fall as 1/i, as those of learned features do: on uncorrelated
    features L-BFGS would be done after a few iterations.
    """
    rng = np.random.default_rng(0)
    mixing = np.linalg.qr(rng.standard_normal((dim, dim)))[0] / np.sqrt(np.arange(1, dim + 1))[:, None]
    centres = rng.standard_normal((num_classes, dim))
    parts = []
    for n in (train_size, test_size):
        labels = np.arange(n) % num_classes
        features = (centres[labels] + 6 * rng.standard_normal((n, dim))) @ mixing
        parts += [features.astype(np.float32), labels]
    return tuple(parts)
