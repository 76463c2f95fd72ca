"""Marginals do not identify the predictor: couplings of two views with equal laws (paper, section 3.3)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from hamjepa_jax.theory.matrices import positive_definite, same_size, square_root


def optimal_predictor(sigma: ArrayLike, orthogonal: ArrayLike) -> np.ndarray:
    """A = Σ^{1/2}OΣ^{−1/2}: the matrix of E[z_b | z_a] = A·z_a under the coupling that O picks.

    z_a ~ N(0, Σ) and z_b = A·z_a has covariance AΣAᵀ = Σ: both marginals are N(0, Σ), whatever O.

    Args:
      sigma: [d, d] covariance of both views, positive definite.
      orthogonal: O, [d, d] with OᵀO = I.

    Returns:
      [d, d].

    Raises:
      ValueError: if sigma is not positive definite, O is not orthogonal, or their sizes differ.
    """
    sigma = positive_definite("the covariance sigma", sigma)
    orthogonal = np.asarray(orthogonal, np.float64)
    same_size("the covariance sigma", sigma, "the orthogonal matrix O", orthogonal)
    if np.abs(orthogonal.T @ orthogonal - np.eye(len(sigma))).max() > 1e-5:
        raise ValueError("the coupling's matrix O must be orthogonal, but its columns are not orthonormal.")
    return square_root(sigma) @ orthogonal @ square_root(sigma, -0.5)


def joint_covariance(sigma: ArrayLike, orthogonal: ArrayLike) -> np.ndarray:
    """Covariance of (z_a, z_b): [[Σ, ΣAᵀ], [AΣ, Σ]], [2d, 2d]; errors as `optimal_predictor`."""
    a = optimal_predictor(sigma, orthogonal)
    sigma = positive_definite("the covariance sigma", sigma)
    return np.block([[sigma, sigma @ a.T], [a @ sigma, sigma]])


def cross_errors(sigma: ArrayLike, orthogonals: Sequence[ArrayLike]) -> np.ndarray:
    """The cost of each coupling's optimal predictor under the others.

    Args:
      sigma: [d, d] covariance of both views, positive definite.
      orthogonals: m orthogonal matrices O, [d, d] each.

    Returns:
      [m, m]: entry (i, j) is E‖A_i·z_a − z_b‖² when z_b = A_j·z_a, that is ‖(O_i − O_j)ᵀΣ^{1/2}‖_F²; 0 on the
      diagonal, and up to 4·tr(Σ) off it.

    Raises:
      ValueError: as `optimal_predictor`.
    """
    predictors = [optimal_predictor(sigma, o) for o in orthogonals]
    sigma = positive_definite("the covariance sigma", sigma)
    return np.array([[np.trace((a - b) @ sigma @ (a - b).T) for b in predictors] for a in predictors])


def quarter_turn(d: int) -> np.ndarray:
    """The orthogonal matrix [[0, I], [−I, 0]] that turns (q, p) into (p, −q): [d, d], d even.

    Raises:
      ValueError: if d is odd or not positive.
    """
    if d < 2 or d % 2:
        raise ValueError(f"a quarter turn of phase space needs an even, positive dimension, got {d}.")
    half = np.eye(d // 2)
    return np.block([[0 * half, half], [-half, 0 * half]])
