"""Geometry of a cloud of features: spectrum, ranks, cosines, norms, alignment and uniformity.

All is computed on the host in float64, but for the similarities of all pairs, in float32. A few thousand samples
take about a second, and an accelerator's roundoff cannot hide the small eigenvalues of a collapsing representation.
"""

from collections.abc import Sequence

import jax
import numpy as np

from hamjepa_jax.evaluation.checks import Features, check_features
from hamjepa_jax.rng import stream


def covariance_spectrum(x: Features, top: int) -> np.ndarray:
    """Largest eigenvalues of the unbiased covariance of the mean-centred features, by an exact decomposition.

    The evaluation passes up to 5,000 test features; published spectra are of training features, by a randomised
    decomposition that gives too small a tail.

    Args:
      x: [n, d] features, n ≥ 2, NumPy or JAX.
      top: how many eigenvalues; at most d are returned.

    Returns:
      [min(top, d)] float64 eigenvalues ≥ 0, descending, in squared units of x. With n ≤ d all but n − 1 are 0.

    Raises:
      ValueError: if x is no finite matrix of at least two rows, or top < 1.
    """
    x = _several("x", x)
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}.")
    n, d = x.shape
    x = x - x.mean(axis=0)
    # XᵀX and XXᵀ have the same eigenvalues but for zeros: decompose the smaller.
    second_moment = x @ x.T if d > n else x.T @ x
    found = np.linalg.eigvalsh(second_moment)[::-1][:top] / (n - 1)
    spectrum = np.zeros(min(top, d))
    spectrum[: found.size] = np.maximum(found, 0.0)  # roundoff leaves zeros slightly negative
    return spectrum


def effective_rank(eigenvalues: Sequence[float] | Features) -> float:
    """exp of the entropy of the eigenvalues normalised to sum 1 (Roy & Vetterli, 2007).

    RankMe (Garrido et al., 2023) is another measure: of the singular values, of features that are not centred.

    Args:
      eigenvalues: [k] covariance eigenvalues in any order; negative ones count as 0.

    Returns:
      A number between 1 (one direction) and k (k equal ones); 0 if all eigenvalues are 0.

    Raises:
      ValueError: if there are no eigenvalues or one is not finite.
    """
    share = _shares(eigenvalues)
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share)))) if share.size else 0.0


def participation_ratio(eigenvalues: Sequence[float] | Features) -> float:
    """(Σλ)² / Σλ², the number of directions that carry the variance; never above `effective_rank`.

    Args:
      eigenvalues: [k] covariance eigenvalues in any order; negative ones count as 0.

    Returns:
      A number between 1 and k; 0 if all eigenvalues are 0.

    Raises:
      ValueError: if there are no eigenvalues or one is not finite.
    """
    share = _shares(eigenvalues)
    return float(1.0 / np.sum(share**2)) if share.any() else 0.0


def random_pair_cosines(x: Features, *, num_pairs: int, seed: int) -> np.ndarray:
    """Cosines between random pairs of different examples, features not centred.

    Args:
      x: [n, d] features, n ≥ 2.
      num_pairs: pairs drawn, with replacement; the two examples of a pair always differ.
      seed: of the draw.

    Returns:
      [num_pairs] float64 cosines; 0 where a feature vector is 0.

    Raises:
      ValueError: if x is no finite matrix of at least two rows, or num_pairs < 1.
    """
    x = _several("x", x)
    if num_pairs < 1:
        raise ValueError(f"num_pairs must be at least 1, got {num_pairs}.")
    n = x.shape[0]
    first_key, distance_key = jax.random.split(stream(seed, "geometry.pairs"))
    first = np.asarray(jax.random.randint(first_key, (num_pairs,), 0, n))
    second = (first + np.asarray(jax.random.randint(distance_key, (num_pairs,), 1, n))) % n
    x = _unit_rows(x)
    # Row sums of a product of gathered rows, in slices: 20,000 pairs of 2048 features would be 330 MB each.
    slices = np.array_split(np.arange(num_pairs), -(-num_pairs // 1024))
    return np.concatenate([np.einsum("ij,ij->i", x[first[s]], x[second[s]]) for s in slices])


def norms(x: Features) -> np.ndarray:
    """Euclidean norm of each feature vector: [n, d] -> [n] float64, features not centred."""
    return np.linalg.norm(np.asarray(check_features("x", x), np.float64), axis=1)


def alignment(x: Features, y: Features) -> float:
    """Mean squared distance ‖x̂ − ŷ‖² between the unit features of two views (Wang & Isola, 2020).

    Args:
      x: [n, d] features of one view of each example.
      y: [n, d] features of another view of the same examples.

    Returns:
      A number between 0 (views agree) and 4.

    Raises:
      ValueError: if the shapes differ or features are not finite.
    """
    x, y = (np.asarray(check_features(name, a), np.float64) for name, a in (("x", x), ("y", y)))
    if x.shape != y.shape:
        raise ValueError(f"alignment compares two views of the same examples, got shapes {x.shape} and {y.shape}.")
    return float(np.mean(np.sum((_unit_rows(x) - _unit_rows(y)) ** 2, axis=1)))


def uniformity(x: Features, *, chunk: int = 1024) -> float:
    """log of the mean of exp(−2‖x̂ᵢ − x̂ⱼ‖²) over all pairs i < j of unit features (Wang & Isola, 2020).

    Args:
      x: [n, d] features, n ≥ 2. The cost is n² d; draw a sample first if n is large.
      chunk: rows compared with all at once; the largest temporaries are [chunk, n].

    Returns:
      A number ≤ 0, 0 for a collapsed representation, towards −4 the more evenly the sphere is filled.

    Raises:
      ValueError: if x is no finite matrix of at least two rows.
    """
    unit = _unit_rows(_several("x", x)).astype(np.float32)
    n = unit.shape[0]
    total = 0.0
    for start in range(0, n, chunk):
        # Only columns from `start` on, of which those right of the diagonal are pairs not met before.
        cosine = np.minimum(unit[start : start + chunk] @ unit[start:].T, 1.0)
        total += np.triu(np.exp(4.0 * cosine - 4.0), k=1).sum(dtype=np.float64)  # ‖x̂ − ŷ‖² = 2 − 2·cosine
    return float(np.log(total / (n * (n - 1) / 2)))


def summary_statistics(values: Sequence[float] | Features) -> dict[str, float]:
    """{"mean", "std" (biased), "p10", "p50", "p90" (interpolated percentiles), "min", "max"} of [n] values."""
    values = np.asarray(values, np.float64)
    p10, p50, p90 = np.percentile(values, [10, 50, 90])
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "p10": float(p10),
        "p50": float(p50),
        "p90": float(p90),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def _several(name: str, x: Features) -> np.ndarray:
    x = np.asarray(check_features(name, x), np.float64)
    if x.shape[0] < 2:
        raise ValueError(f"{name} {x.shape} has a single example; a covariance or a pair needs at least two.")
    return x


def _unit_rows(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1.0)


def _shares(eigenvalues: Sequence[float] | Features) -> np.ndarray:
    eigenvalues = np.asarray(eigenvalues, np.float64)
    if eigenvalues.ndim != 1 or eigenvalues.size == 0 or not np.isfinite(eigenvalues).all():
        raise ValueError(f"expected a vector of finite eigenvalues, got shape {eigenvalues.shape}: {eigenvalues}.")
    eigenvalues = np.maximum(eigenvalues, 0.0)
    total = eigenvalues.sum()
    return eigenvalues / total if total > 0 else eigenvalues
