"""RankMe of the test features: rankme. Needs no labels."""

import numpy as np

from hamjepa_jax.metrics.contract import LEARNING_CURVE, Features, Panel
from hamjepa_jax.parts import metrics

EPSILON = 1e-7


def smooth_rank(singular_values: np.ndarray) -> float:
    """exp(−Σ pₖ log pₖ) with pₖ = σₖ / Σσ + ε (Garrido et al., "RankMe", 2023).

    ε = 1e-7, about float32's precision, as other programs have it.

    Told apart from the two numbers that are often taken for it:
      `evaluation.effective_rank`, which the paper of HamJEPA reports, is the same entropy of the eigenvalues of the
      covariance: of squared singular values, of centred features, without ε. So directions of little variance count
      for less there.
      The effective rank of Roy & Vetterli (2007) has the singular values and no ε. With n of them ε adds about
      16·n·ε to the entropy, so that RankMe is higher by a few parts in a thousand at n = 1,000.

    Args:
      singular_values: [k] of the features, not centred, in any order.

    Returns:
      A number between 1 and k, up to ε; 0 if all are 0.

    >>> round(smooth_rank(np.ones(8)), 3)
    8.0
    """
    total = singular_values.sum()
    if total <= 0:
        return 0.0
    p = singular_values / total + EPSILON
    return float(np.exp(-np.sum(p * np.log(p))))


def singular_values(x: np.ndarray) -> np.ndarray:
    """[min(n, d)] of a matrix [n, d] in float64, descending, from the smaller of its two Gram matrices.

    Those below 1e-8 of the largest are rounding: ε hides them.
    """
    x = np.asarray(x, np.float64)
    gram = x @ x.T if x.shape[1] > x.shape[0] else x.T @ x
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0))


@metrics.register(
    "rankme",
    place=3.2,
    listed=True,
    score=lambda value: value,
    panels=[Panel("RankMe", "RankMe", figures=(LEARNING_CURVE,), place=4)],
)
def rankme(x: Features) -> float:
    """RankMe of up to 5,000 test features; the paper takes 25,600 training images. See `smooth_rank`."""
    return smooth_rank(singular_values(x.sample))
