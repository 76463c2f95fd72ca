"""Alignment of views and uniformity on the sphere (Wang and Isola, 2020)."""

from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import parts
from hamjepa_jax.objectives.objective import (
    Context,
    Objective,
    as_one_batch,
    scale_diagnostics,
    unit_length,
    view_pairs,
)
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array

SETTINGS = settings(
    alignment_weight=field(1.0, "Weight of the alignment (ours).", least=0),
    uniformity_weight=field(1.0, "Weight of the uniformity (ours).", least=0),
    alpha=field(2.0, "Power α of the distance of two views.", least=1),
    t=field(2.0, "Sharpness t of the Gaussian potential.", above=0),
)


@parts.objectives.register(
    "alignment_uniformity",
    SETTINGS,
    title="Alignment and uniformity",
    shown=("pred", "uniformity", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
    least_images=2,
)
def alignment_uniformity(context: Context, s: Values) -> Objective:
    """Weighted L_align + L_uniform of unit vectors (section 4.1 of the paper, whose α = t = 2 are the defaults).

    The alignment is averaged over every pair of a global view and a later view, the uniformity over the views.
    """

    def loss(params: Any, z: Array, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array]]:
        del params, draw, epoch
        x = unit_length(z.astype(jnp.float32))
        pairs = view_pairs(z, context.num_global)
        aligned = sum(alignment_loss(x[i], x[j], alpha=s.alpha) for i, j in pairs) / len(pairs)
        uniform = sum(uniformity_loss(view, t=s.t) for view in x) / len(x)
        total = s.alignment_weight * aligned + s.uniformity_weight * uniform
        metrics = {"total": total, "pred": aligned, "uniformity": uniform}
        return total, metrics | scale_diagnostics(as_one_batch(z), "z")

    return Objective(lambda count: (), 1, loss)


def alignment_loss(x: Array, y: Array, *, alpha: float) -> Array:
    """Mean of ‖x − y‖^α over the rows of two views [n, k]; a distance below 1e-6 sends no gradient."""
    squares = jnp.square(x - y).sum(axis=-1)
    return jnp.power(jnp.maximum(squares, 1e-12), alpha / 2).mean()


def uniformity_loss(x: Array, *, t: float) -> Array:
    """log of the mean of exp(−t·‖x_i − x_j‖²) over the pairs i ≠ j of x [n, k], n ≥ 2; the paper's x have length 1.

    Raises:
      ValueError: if x is not a matrix with two rows or more.
    """
    if x.ndim != 2 or x.shape[0] < 2:
        raise ValueError(f"uniformity_loss expects [n, k] with two rows or more, got shape {x.shape}.")
    n = x.shape[0]
    lengths = jnp.square(x).sum(axis=-1)  # 1, but of a vector that is nearly zero
    squares = lengths[:, None] + lengths[None, :] - 2 * jnp.matmul(x, x.T, precision="highest")
    exponents = jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, -t * squares)
    return jax.nn.logsumexp(exponents) - jnp.log(n * (n - 1.0))
