"""The isotropic baseline: LeJEPA's prediction loss with SIGReg (arXiv 2511.08544)."""

from typing import Any

import jax

from hamjepa_jax import rng
from hamjepa_jax.objectives.consistency import lejepa_prediction
from hamjepa_jax.objectives.objective import Objective, scale_diagnostics
from hamjepa_jax.objectives.projections import unit_directions
from hamjepa_jax.objectives.sigreg import sigreg

Array = jax.Array


def lejepa(
    *,
    embed_dim: int,
    num_global: int,
    seed: int,
    sigreg_weight: float,
    num_directions: int,
    num_points: int,
    t_max: float,
    weight: str,
    refresh_interval: int,
) -> Objective:
    """L_pred + λ·SIGReg over all views.

    Args:
      embed_dim: size k of an embedding.
      num_global: how many of the views are global.
      seed: of the directions' stream.
      sigreg_weight: λ.
      num_directions: slices M.
      num_points, t_max, weight: the quadrature, see `sigreg`.
      refresh_interval: steps for which one set of directions serves.
    """

    def draw(count: Array | int) -> Array:
        return unit_directions(rng.stream(seed, "sigreg", count), embed_dim, num_directions)

    def loss(params: Any, z: Array, directions: Array, epoch: Array) -> tuple[Array, dict[str, Array]]:
        del params, epoch  # Nothing is learned beside the encoder, and nothing changes with the epoch.
        prediction = lejepa_prediction(z, num_global)
        isotropy = sigreg(z, directions, num_points=num_points, t_max=t_max, weight=weight)
        total = prediction + sigreg_weight * isotropy
        metrics = {"total": total, "pred": prediction, "sigreg": isotropy}
        return total, metrics | scale_diagnostics(z.reshape(-1, z.shape[-1]), "z")

    return Objective(draw, refresh_interval, loss)
