"""The variance–invariance–covariance baseline (VICReg: Bardes, Ponce and LeCun, 2022) on headless embeddings."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax.objectives.objective import Objective, as_one_batch, scale_diagnostics

Array = jax.Array


def vicreg(
    *,
    num_global: int,
    invariance_weight: float,
    variance_weight: float,
    covariance_weight: float,
    std_target: float,
    variance_eps: float,
) -> Objective:
    """λ·invariance + μ·variance + ν·covariance (VICReg, eq. 6).

    Invariance is the mean squared error (over the batch and, as in the paper's algorithm, over the coordinates),
    averaged over every pair of a global view and a later view. Variance and covariance are twice their mean over
    the views, which for two views is the paper's sum.

    Args:
      num_global: how many of the views are global.
      invariance_weight, variance_weight, covariance_weight: λ, μ and ν, 25, 25 and 1 in the paper.
      std_target: γ, see `variance_hinge`.
      variance_eps: see `variance_hinge`.
    """

    def loss(params: Any, z: Array, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array]]:
        del params, draw, epoch  # Nothing random, nothing learned beside the encoder.
        pairs = [(i, j) for i, j in itertools.combinations(range(z.shape[0]), 2) if i < num_global]
        invariance = sum(jnp.square(z[i] - z[j]).mean() for i, j in pairs) / len(pairs)
        variance = 2 * jax.vmap(lambda x: variance_hinge(x, target=std_target, eps=variance_eps))(z).mean()
        covariance = 2 * jax.vmap(covariance_penalty)(z).mean()
        total = invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance
        metrics = {"total": total, "pred": invariance, "var": variance, "cov": covariance}
        return total, metrics | scale_diagnostics(as_one_batch(z), "z")

    return Objective(lambda count: (), 1, loss)


def variance_hinge(x: Array, *, target: float, eps: float) -> Array:
    """mean_i max(0, target − √(var_i + eps)) (VICReg, eq. 1); not squared, the variance unbiased.

    Args:
      x: [n, d] features, n ≥ 2.
      target: standard deviation below which a coordinate is penalised, in units of x.
      eps: added to the variance, in squared units of x.

    Raises:
      ValueError: if x is not a matrix with two rows or more.
    """
    _check_batch("variance_hinge", x)
    return jnp.maximum(0.0, target - jnp.sqrt(x.var(axis=0, ddof=1) + eps)).mean()


def covariance_penalty(x: Array) -> Array:
    """Sum of the squared off-diagonal entries of the unbiased covariance, over d (VICReg, eq. 3–4).

    Args:
      x: [n, d] features, n ≥ 2.

    Raises:
      ValueError: if x is not a matrix with two rows or more.
    """
    _check_batch("covariance_penalty", x)
    n, d = x.shape
    x = x - x.mean(axis=0, keepdims=True)
    covariance = jnp.matmul(x.T, x, precision="highest") / (n - 1)
    return jnp.square(covariance * (1.0 - jnp.eye(d, dtype=x.dtype))).sum() / d


def _check_batch(name: str, x: Array) -> None:
    if x.ndim != 2 or x.shape[0] < 2:
        raise ValueError(f"{name} expects [n, d] features of two examples or more, got shape {x.shape}.")
