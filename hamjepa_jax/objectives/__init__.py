"""Training objectives: prediction losses, collapse floors, isotropy penalties, and their compositions."""

from hamjepa_jax.objectives.consistency import consistency, lejepa_prediction
from hamjepa_jax.objectives.floors import energy_budget, logdet_floor, mean_penalty, variance_floor
from hamjepa_jax.objectives.hamjepa import hamjepa
from hamjepa_jax.objectives.hamsigreg import SPECTRUM, ham_geometry, hamsigreg
from hamjepa_jax.objectives.lejepa import lejepa
from hamjepa_jax.objectives.objective import (
    Context,
    Embedded,
    Grid,
    Objective,
    Seen,
    Teacher,
    Wide,
    refuse,
)
from hamjepa_jax.objectives.projections import orthonormal_projection, unit_directions
from hamjepa_jax.objectives.sigreg import sigreg
from hamjepa_jax.objectives.transforms import ham_transform
from hamjepa_jax.objectives.vicreg import covariance_penalty, variance_hinge, vicreg
from hamjepa_jax.parts import register_all

__all__ = [
    "SPECTRUM",
    "Context",
    "Embedded",
    "Grid",
    "Objective",
    "Seen",
    "Teacher",
    "Wide",
    "consistency",
    "covariance_penalty",
    "energy_budget",
    "ham_geometry",
    "ham_transform",
    "hamjepa",
    "hamsigreg",
    "lejepa",
    "lejepa_prediction",
    "logdet_floor",
    "mean_penalty",
    "orthonormal_projection",
    "refuse",
    "sigreg",
    "unit_directions",
    "variance_floor",
    "variance_hinge",
    "vicreg",
]

register_all(__name__, __path__)
