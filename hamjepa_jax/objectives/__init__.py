"""Training objectives: prediction losses, collapse floors, isotropy penalties, and their compositions."""

from hamjepa_jax.objectives.consistency import consistency, lejepa_prediction
from hamjepa_jax.objectives.floors import energy_budget, logdet_floor, mean_penalty, variance_floor
from hamjepa_jax.objectives.hamjepa import hamjepa
from hamjepa_jax.objectives.lejepa import lejepa
from hamjepa_jax.objectives.objective import Objective
from hamjepa_jax.objectives.projections import orthonormal_projection, unit_directions
from hamjepa_jax.objectives.sigreg import sigreg

__all__ = [
    "Objective",
    "consistency",
    "energy_budget",
    "hamjepa",
    "lejepa",
    "lejepa_prediction",
    "logdet_floor",
    "mean_penalty",
    "orthonormal_projection",
    "sigreg",
    "unit_directions",
    "variance_floor",
]
