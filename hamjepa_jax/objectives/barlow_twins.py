"""Redundancy reduction by the cross-correlation of two views (Barlow Twins: Zbontar et al., 2021)."""

from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import parts
from hamjepa_jax.objectives.objective import Context, Objective, as_one_batch, scale_diagnostics, view_pairs
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array

SETTINGS = settings(
    redundancy_weight=field(
        5e-3,
        "Weight λ of the squared cross-correlations of different coordinates; published code has 0.0051, for 8192.",
        least=0,
    ),
    variance_eps=field(
        1e-5, "Added to a coordinate's variance before the square root; batch normalisation's in PyTorch.", above=0
    ),
)


@parts.objectives.register(
    "barlow_twins",
    SETTINGS,
    title="Barlow Twins",
    shown=("pred", "redundancy", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
    least_images=2,
)
def barlow_twins(context: Context, s: Values) -> Objective:
    """Σ_i (1 − C_ii)² + λ·Σ_{i≠j} C_ij² (Barlow Twins, eq. 1), averaged over pairs of a global and a later view."""

    def loss(params: Any, z: Array, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array]]:
        del params, draw, epoch
        terms = [barlow_terms(z[i], z[j], eps=s.variance_eps) for i, j in view_pairs(z, context.num_global)]
        invariance, redundancy = (sum(term) / len(terms) for term in zip(*terms, strict=True))
        total = invariance + s.redundancy_weight * redundancy
        metrics = {"total": total, "pred": invariance, "redundancy": redundancy}
        return total, metrics | scale_diagnostics(as_one_batch(z), "z")

    return Objective(lambda count: (), 1, loss)


def barlow_terms(a: Array, b: Array, *, eps: float) -> tuple[Array, Array]:
    """(Σ_i (1 − C_ii)², Σ_{i≠j} C_ij²) of the cross-correlation C of two views (eq. 1 and 2).

    Args:
      a, b: [n, k], two views of the same n ≥ 2 images.
      eps: added to each coordinate's biased variance before the square root.

    Raises:
      ValueError: if the shapes differ or there are fewer than two images.
    """
    if a.shape != b.shape or a.ndim != 2 or a.shape[0] < 2:
        raise ValueError(f"barlow_terms expects two views [n, k] of two images or more, got {a.shape}, {b.shape}.")
    a, b = _standardised(a.astype(jnp.float32), eps), _standardised(b.astype(jnp.float32), eps)
    correlation = jnp.matmul(a.T, b, precision="highest") / a.shape[0]
    diagonal = jnp.diagonal(correlation)
    off_diagonal = correlation * (1 - jnp.eye(a.shape[1], dtype=a.dtype))
    return jnp.square(1 - diagonal).sum(), jnp.square(off_diagonal).sum()


def _standardised(x: Array, eps: float) -> Array:
    x = x - x.mean(axis=0, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(axis=0, keepdims=True) + eps)
