"""Contrast of views against the other images of the batch (SimCLR: Chen et al., 2020; InfoNCE: Oord et al.)."""

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
    temperature=field(
        0.5, "Temperature τ of the cosines; 0.5 is SimCLR's on CIFAR-10, 0.1 its on ImageNet.", above=0
    ),
)


@parts.objectives.register(
    "simclr",
    SETTINGS,
    title="SimCLR",
    shown=("pred", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
    least_images=2,
)
def simclr(context: Context, s: Values) -> Objective:
    """NT-Xent (SimCLR, eq. 1), averaged over every pair of a global view and a later view.

    The other images of the whole batch, over all devices, are the negatives; with micro-batches those of one.
    """

    def loss(params: Any, z: Array, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array]]:
        del params, draw, epoch
        pairs = view_pairs(z, context.num_global)
        contrast = sum(nt_xent(z[i], z[j], temperature=s.temperature) for i, j in pairs) / len(pairs)
        metrics = {"total": contrast, "pred": contrast}
        return contrast, metrics | scale_diagnostics(as_one_batch(z), "z")

    return Objective(lambda count: (), 1, loss)


def nt_xent(a: Array, b: Array, *, temperature: float) -> Array:
    """Mean over 2n embeddings i of −log exp(s_ij/τ) / Σ_{k≠i} exp(s_ik/τ), j its other view, s cosines (eq. 1).

    Args:
      a, b: [n, k], two views of the same n ≥ 2 images.
      temperature: τ.

    Raises:
      ValueError: if the shapes differ or there are fewer than two images.
    """
    if a.shape != b.shape or a.ndim != 2 or a.shape[0] < 2:
        raise ValueError(f"nt_xent expects two views [n, k] of two images or more, got {a.shape} and {b.shape}.")
    a, b = unit_length(a.astype(jnp.float32)), unit_length(b.astype(jnp.float32))
    not_itself = jnp.where(jnp.eye(a.shape[0], dtype=bool), -jnp.inf, 0.0)

    def of(x: Array, y: Array) -> Array:
        across = _cosines(x, y) / temperature
        within = _cosines(x, x) / temperature + not_itself
        others = jax.nn.logsumexp(jnp.concatenate([across, within], axis=1), axis=1)
        return (others - jnp.diagonal(across)).mean()

    return 0.5 * (of(a, b) + of(b, a))


def _cosines(x: Array, y: Array) -> Array:
    return jnp.matmul(x, y.T, precision="highest")
