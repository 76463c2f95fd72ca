"""Times the evaluation of one readout against scikit-learn's kNN and logistic regression on the same features."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from hamjepa_jax.evaluation.knn import knn_accuracy
from hamjepa_jax.evaluation.protocol import KS, PROBE, evaluate_features

QUERIES = 1024  # Compared with the bank at once, by the protocol in NumPy.


def benchmark_evaluation(
    train_size: int, test_size: int, dim: int, num_classes: int, *, epochs: int, rounds: int
) -> dict[str, Any]:
    """Times all on made-up features: correlated Gaussian clusters, so that accuracies mean something.

    Ours: kNN for seven k with top-1 and top-5, the linear probe and the geometry of one readout, compilation
    included; and the kNN again once it is compiled, in turns with the published protocol's steps in NumPy (float32
    products, argpartition, majority votes) and with scikit-learn's search for as many neighbours, medians of the
    rounds. Scikit-learn's: that search (NearestNeighbors, brute, cosine), and LogisticRegression (L-BFGS, at most
    100 iterations) on standardised features.

    Args:
      train_size: training examples.
      test_size: test examples.
      dim: features of an example.
      num_classes: number of classes.
      epochs: of the linear probe.
      rounds: in each of which every kNN is timed once, one after the other.

    Returns:
      {"train", "test", "dim", "classes", "rounds", "rows": [{"name", "seconds", "accuracy"}], "ratios": {name: time
      of our kNN as a share of its}}; accuracies are top-1, or None.
    """
    from sklearn.exceptions import ConvergenceWarning  # takes seconds to import
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    features = _clusters(train_size, test_size, dim, num_classes)
    train_x, train_y, test_x, test_y = features
    scaler = StandardScaler().fit(train_x)
    logistic = LogisticRegression(max_iter=100)
    search = NearestNeighbors(n_neighbors=max(KS), algorithm="brute", metric="cosine", n_jobs=-1).fit(train_x)

    def ours(**settings):
        return evaluate_features(*features, num_classes=num_classes, split=False, **settings)

    geometry, _ = _timed(lambda: ours(ks=(), probe=None))
    knn, knn_found = _timed(lambda: ours(ks=KS, probe=None))
    probe, probe_found = _timed(lambda: ours(ks=(), probe=PROBE | {"epochs": epochs}))
    knn, probe = knn - geometry, probe - geometry  # Geometry is part of each.
    compared = {
        "ours": lambda: knn_accuracy(*features, ks=KS, num_classes=num_classes)["top1"][20],
        "numpy": lambda: published_knn(*features, ks=KS, num_classes=num_classes)[20],
        "scikit-learn": lambda: search.kneighbors(test_x, return_distance=False),
    }
    seconds, found = _in_turns(compared, rounds)
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
        ("  once compiled, median", seconds["ours"], found["ours"]),
        ("published protocol's kNN in NumPy, same k, top-1", seconds["numpy"], found["numpy"]),
        (f"scikit-learn's search, k = {max(KS)}, brute cosine", seconds["scikit-learn"], None),
        (
            f"scikit-learn LogisticRegression, {iterations} iterations",
            fit,
            logistic.score(scaler.transform(test_x), test_y),
        ),
    ]
    return {
        "train": train_size,
        "test": test_size,
        "dim": dim,
        "classes": num_classes,
        "rounds": rounds,
        "rows": [{"name": name, "seconds": s, "accuracy": a} for name, s, a in rows],
        "ratios": {name: seconds["ours"] / seconds[name] for name in ("numpy", "scikit-learn")},
    }


def describe(found: Mapping[str, Any]) -> str:
    """Lines with seconds and accuracies."""
    sizes = f"{found['train']:,} + {found['test']:,} features of {found['dim']}, {found['classes']} classes"
    head, lines = f"{sizes}, on {jax.devices()[0].device_kind}", []
    for row in found["rows"]:
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:10.2%}"
        lines.append(f"{row['name']:<50} {row['seconds']:8.1f} s{accuracy}")
    ratios = [f"{ratio:.2f} of {name}'s" for name, ratio in found["ratios"].items()]
    return "\n".join([head, *lines, f"kNN takes {' and '.join(ratios)} time."])


def published_knn(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    ks: Sequence[int],
    num_classes: int,
) -> dict[int, float]:
    """{k: top-1 accuracy} by the steps of the published protocol, in NumPy: unit rows, float32 products with the
    whole bank, argpartition for the largest k, a sort of these, and a majority vote for each k.
    """
    bank, most, hits = _unit(train_x), max(ks), dict.fromkeys(ks, 0)
    for start in range(0, len(test_x), QUERIES):
        similarity = _unit(test_x[start : start + QUERIES]) @ bank.T
        nearest = np.argpartition(-similarity, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(similarity, nearest, axis=1), axis=1, kind="stable")
        labels = train_y[np.take_along_axis(nearest, order, axis=1)]
        rows = np.arange(len(labels))[:, None]
        for k in ks:
            votes = np.zeros((len(labels), num_classes), np.int32)
            np.add.at(votes, (rows, labels[:, :k]), 1)
            hits[k] += int((votes.argmax(axis=1) == test_y[start : start + QUERIES]).sum())
    return {k: count / len(test_x) for k, count in hits.items()}


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _in_turns(functions: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """({name: median of seconds}, {name: result}); each round calls every function once."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    found = {}
    for _ in range(rounds):
        for name, function in functions.items():
            spent, found[name] = _timed(function)
            seconds[name].append(spent)
    return {name: float(np.median(of_one)) for name, of_one in seconds.items()}, found


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
