"""Checked symmetric matrices and their square roots, in NumPy float64."""

import numpy as np
from numpy.typing import ArrayLike


def positive_definite(name: str, matrix: ArrayLike) -> np.ndarray:
    """The matrix as float64, symmetrised [d, d].

    Raises:
      ValueError: if it is not square, finite, symmetric (to 1e-5 of its largest entry) and positive definite.
    """
    symmetric, smallest, largest = _symmetric(name, matrix)
    if smallest <= 0:
        raise ValueError(
            f"{name} must be positive definite, but its eigenvalues run from {smallest:.3g} to {largest:.3g}."
        )
    return symmetric


def covariance(name: str, matrix: ArrayLike) -> np.ndarray:
    """The matrix as float64, symmetrised [d, d]; singular is allowed (a collapsed cloud), zero is not.

    Raises:
      ValueError: if it is not square, finite, symmetric, positive semidefinite and non-zero.
    """
    symmetric, smallest, largest = _symmetric(name, matrix)
    if largest <= 0 or smallest < -1e-6 * largest:  # float32 inputs are indefinite by their roundoff
        raise ValueError(
            f"{name} must be a covariance (positive semidefinite, not zero), but its eigenvalues run from "
            f"{smallest:.3g} to {largest:.3g}."
        )
    return symmetric


def same_size(name_a: str, a: np.ndarray, name_b: str, b: np.ndarray) -> None:
    """Raises ValueError unless the two matrices have one shape."""
    if a.shape != b.shape:
        raise ValueError(f"{name_a} and {name_b} must have one size, got {a.shape} and {b.shape}.")


def square_root(matrix: np.ndarray, power: float = 0.5) -> np.ndarray:
    """The symmetric power of a symmetric positive (semi)definite matrix, [d, d] -> [d, d]."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 0.0) ** power) @ vectors.T


def _symmetric(name, matrix):
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"{name} must be a square matrix [d, d], got shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} holds infinities or nans.")
    if np.abs(matrix - matrix.T).max() > 1e-5 * np.abs(matrix).max():
        raise ValueError(f"{name} must be symmetric, but differs from its transpose.")
    symmetric = 0.5 * (matrix + matrix.T)
    values = np.linalg.eigvalsh(symmetric)
    return symmetric, values[0], values[-1]
