"""Eigenvalues by frequency of operators on a periodic grid, and their means."""

from types import ModuleType
from typing import Any

import numpy as np

GAUGES = ("trace", "logdet")


def laplacian(n: int) -> np.ndarray:
    """Eigenvalues of the periodic second difference by frequency: [n]."""
    return 2.0 - 2.0 * np.cos(2.0 * np.pi * np.arange(n) / n)


def grid_laplacian(h: int, w: int) -> np.ndarray:
    """Eigenvalues of the periodic five-point Laplacian by frequency, in the order of `numpy.fft.fft2`: [h, w]."""
    return laplacian(h)[:, None] + laplacian(w)[None, :]


def squared_radius(h: int, w: int) -> np.ndarray:
    """r² of every frequency, r in cycles per token: [h, w]."""
    return np.fft.fftfreq(h)[:, None] ** 2 + np.fft.fftfreq(w)[None, :] ** 2


def mean_eigenvalue(values: Any, gauge: str, xp: ModuleType) -> Any:
    """The mean of eigenvalues in a gauge: "trace" (arithmetic) or "logdet" (geometric).

    Args:
      values: an array of `xp`.
      gauge: one of GAUGES.
      xp: numpy or jax.numpy.
    """
    return values.mean() if gauge == "trace" else xp.exp(xp.log(values).mean())


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises ValueError if an option has another value than those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
