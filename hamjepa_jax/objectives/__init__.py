"""Training objectives: prediction losses, collapse floors, isotropy penalties, and their compositions."""

from hamjepa_jax.objectives.consistency import consistency, lejepa_prediction
from hamjepa_jax.objectives.floors import energy_budget, logdet_floor, mean_penalty, variance_floor
from hamjepa_jax.objectives.hamjepa import hamjepa
from hamjepa_jax.objectives.hamsigreg import ham_transform
from hamjepa_jax.objectives.learned_geometry import SPECTRUM, learned_geometry
from hamjepa_jax.objectives.lejepa import lejepa
from hamjepa_jax.objectives.objective import Objective
from hamjepa_jax.objectives.projections import orthonormal_projection, unit_directions
from hamjepa_jax.objectives.sigreg import sigreg
from hamjepa_jax.objectives.vicreg import covariance_penalty, variance_hinge, vicreg

__all__ = [
    "SPECTRUM",
    "Objective",
    "consistency",
    "covariance_penalty",
    "energy_budget",
    "ham_transform",
    "hamjepa",
    "learned_geometry",
    "lejepa",
    "lejepa_prediction",
    "logdet_floor",
    "mean_penalty",
    "orthonormal_projection",
    "sigreg",
    "unit_directions",
    "variance_floor",
    "variance_hinge",
    "vicreg",
]
