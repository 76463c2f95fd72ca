"""LiDAR, the rank of what tells images apart under augmentation: lidar_n1000_v50. Needs no labels.

Measured if `evaluate.lidar.images` asks for it: each of n test images is seen in v random views.
"""

import numpy as np

from hamjepa_jax.metrics.contract import LEARNING_CURVE, Features, Panel, Protocol
from hamjepa_jax.metrics.keys import Key, Surrogates
from hamjepa_jax.metrics.rankme import smooth_rank
from hamjepa_jax.parts import metrics

DELTA = 1e-4  # Added to the covariance within images, in squared units of the features.


def lidar_rank(views: np.ndarray) -> float:
    """exp of the entropy of the eigenvalues of Σ_w^−½ Σ_b Σ_w^−½ (Thilak et al., "LiDAR", ICLR 2024).

    Σ_b is the covariance of the images' mean features, Σ_w that of the views about their image's mean, plus δI;
    pᵢ = λᵢ / Σλ + ε, ε = 1e-7, as in RankMe. Divisors of the covariances (n or n − 1) change the weight of δ alone.
    The value δ = 1e-4 is our choice: other programs have 1e-4 or 1e-6, and it matters only for features whose views
    scatter by about 0.01 or less. So it is the rank of linear discriminant analysis with each
    image as a class: directions in which views of an image scatter do not count.

    Args:
      views: [n, v, d] features of v views of each of n images, n ≥ 2 and v ≥ 2.

    Returns:
      A number between 1 and min(n − 1, d), up to ε; 0 if all images have the same mean. With n below d + 1 it
      measures n as much as the features.

    Raises:
      ValueError: if there are fewer images or views.
    """
    if views.ndim != 3 or min(views.shape[:2]) < 2:
        raise ValueError(f"LiDAR needs two or more views of two or more images [n, v, d], got {views.shape}.")
    views = np.asarray(views, np.float64)
    n, v, d = views.shape
    means = views.mean(axis=1)
    within = (views - means[:, None]).reshape(n * v, d)
    between = (means - means.mean(axis=0)) / np.sqrt(n)
    # LLᵀ = Σ_w: the eigenvalues wanted are the squared singular values of L⁻¹ times the centred means.
    lower = np.linalg.cholesky(within.T @ within / (n * v) + DELTA * np.eye(d))
    whitened = np.linalg.solve(lower, between.T)
    gram = whitened @ whitened.T if d < n else whitened.T @ whitened
    return smooth_rank(np.maximum(np.linalg.eigvalsh(gram), 0.0))


def _keys(protocol: Protocol) -> list[Key]:
    return [] if protocol.lidar is None else [Key("lidar", Surrogates(*protocol.lidar))]


@metrics.register(
    "lidar",
    keys=_keys,
    place=3.8,
    listed=True,
    score=lambda value: value,
    panels=[Panel("LiDAR", "LiDAR", figures=(LEARNING_CURVE,), place=5)],
)
def lidar(x: Features) -> float:
    """Of random global views of test images, by training's augmentation; the paper has n = 1,000, v = 50."""
    return lidar_rank(x.surrogates)
