"""The variance–invariance–covariance baseline (VICReg: Bardes, Ponce and LeCun, 2022) on headless embeddings."""

from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import parts
from hamjepa_jax.objectives.objective import Context, Objective, as_one_batch, scale_diagnostics, view_pairs
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array

SETTINGS = settings(
    invariance_weight=field(25.0, "Weight λ of the mean squared distance of two views.", least=0),
    variance_weight=field(
        25.0,
        "Weight μ of the hinge on each coordinate's standard deviation, summed over two views as in VICReg's "
        "paper; its published code takes half of that sum, as half the weight does here.",
        least=0,
    ),
    covariance_weight=field(1.0, "Weight ν of the squared covariances of different coordinates.", least=0),
    std_target=field(1.0, "Standard deviation below which a coordinate is penalised, in units of z.", least=0),
    variance_eps=field(1e-4, "Added to the variance under the square root, in squared units of z.", above=0),
)


@parts.objectives.register(
    "vicreg",
    SETTINGS,
    title="VICReg",
    shown=("pred", "var", "cov", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
    least_images=2,
)
def vicreg(context: Context, s: Values) -> Objective:
    """λ·invariance + μ·variance + ν·covariance (VICReg, eq. 6).

    Invariance is the mean squared error (over the batch and, as in the paper's algorithm, over the coordinates),
    averaged over every pair of a global view and a later view. Variance and covariance are twice their mean over
    the views; for two views that is the paper's sum. The published code halves the variance term, so that its
    μ = 25 is 12.5 here; its covariance term is the sum. The variance under the hinge's root is unbiased.
    """

    def loss(params: Any, z: Array, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array]]:
        del params, draw, epoch  # Nothing is random, and the encoder alone learns.
        pairs = view_pairs(z, context.num_global)
        invariance = sum(jnp.square(z[i] - z[j]).mean() for i, j in pairs) / len(pairs)
        variance = 2 * jax.vmap(lambda x: variance_hinge(x, target=s.std_target, eps=s.variance_eps))(z).mean()
        covariance = 2 * jax.vmap(covariance_penalty)(z).mean()
        total = s.invariance_weight * invariance + s.variance_weight * variance + s.covariance_weight * covariance
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
