"""Ridge regression of many targets and penalties on the same features, from one eigendecomposition."""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Ridge(NamedTuple):
    """Least squares with a penalty α‖w‖² and a free intercept, on features [n, d].

    Attributes:
      x: [n, d] features, centred, float64.
      centre: [d] their mean.
      values, vectors: of the smaller Gram matrix of x, XᵀX or XXᵀ.
    """

    x: Array
    centre: Array
    values: Array
    vectors: Array

    def predict(self, y: Array, penalty: float, at: Array) -> Array:
        """Predictions [m, k] for features [m, d], fitted to targets y [n, k] with α = penalty."""
        mean = y.mean(axis=0)
        wide = self.x.shape[1] > self.x.shape[0]
        right = y - mean if wide else self.x.T @ (y - mean)
        solved = self.vectors @ ((self.vectors.T @ right) / (self.values + penalty)[:, None])
        return (at - self.centre) @ (self.x.T @ solved if wide else solved) + mean


def ridge(x: Array) -> Ridge:
    """Prepares features [n, d]; one eigendecomposition of size min(n, d) serves all targets and penalties."""
    centre = x.mean(axis=0)
    x = np.asarray(x - centre, np.float64)
    values, vectors = np.linalg.eigh(x @ x.T if x.shape[1] > x.shape[0] else x.T @ x)
    return Ridge(x, centre, np.maximum(values, 0.0), vectors)
