"""The isotropic baseline: LeJEPA's prediction loss with SIGReg (arXiv 2511.08544)."""

from collections.abc import Callable
from typing import Any

import jax

from hamjepa_jax import rng
from hamjepa_jax.objectives.consistency import lejepa_prediction
from hamjepa_jax.objectives.objective import Objective, as_one_batch, scale_diagnostics
from hamjepa_jax.objectives.projections import unit_directions
from hamjepa_jax.objectives.sigreg import sigreg

Array = jax.Array


def lejepa(
    *,
    embed_dim: int,
    num_global: int,
    seed: int,
    sigreg_weight: float,
    refresh_interval: int,
    num_directions: int,
    transform: Callable[[Array], Array] | None = None,
    **quadrature,
) -> Objective:
    """L_pred + λ·SIGReg over all views.

    Args:
      embed_dim: size k of an embedding.
      num_global: how many of the views are global.
      seed: of the directions' stream.
      sigreg_weight: λ.
      refresh_interval: steps for which one set of directions serves.
      num_directions: slices M.
      transform: z [v, b, k] -> [v, b, k], what SIGReg sees: H^{1/2}z of a fixed geometry H makes it HamSIGReg (see
        `ham_transform`). None is z itself.
      **quadrature: num_points, t_max, weight, subsample, clip, see `sigreg`.
    """

    def loss(params: Any, z: Array, directions: Array, epoch: Array) -> tuple[Array, dict[str, Array]]:
        del params, epoch  # Nothing is learned beside the encoder, and nothing changes with the epoch.
        prediction = lejepa_prediction(z, num_global)
        isotropy = sigreg(z if transform is None else transform(z), directions, **quadrature)
        total = prediction + sigreg_weight * isotropy
        metrics = {"total": total, "pred": prediction, "sigreg": isotropy}
        return total, metrics | scale_diagnostics(as_one_batch(z), "z")

    return Objective(draw_directions(seed, embed_dim, num_directions), refresh_interval, loss)


def draw_directions(seed: int, embed_dim: int, num_directions: int) -> Callable[[Array | int], Array]:
    """(refresh count) -> SIGReg's directions [embed_dim, num_directions]."""
    return lambda count: unit_directions(rng.stream(seed, "sigreg", count), embed_dim, num_directions)
