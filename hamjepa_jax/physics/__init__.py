"""Why a symplectic predictor: explicit Euler against leapfrog on textbook systems, as numbers and as figures.

Figures: `python -m hamjepa_jax.physics --out=DIR`.
"""

from hamjepa_jax.physics.learned import learned_flow_figures, learned_flow_measurements
from hamjepa_jax.physics.measures import (
    blob_grid,
    covariance_statistics,
    drift_map,
    energy_drift_bands,
    grid_area,
    hull_area,
    sliced_discrepancy,
    window_grid,
)
from hamjepa_jax.physics.rollouts import (
    endpoint,
    energy,
    random_starts,
    return_error,
    rollout,
    symplectic_defect,
)
from hamjepa_jax.physics.systems import SYSTEMS, System

__all__ = [
    "SYSTEMS",
    "System",
    "blob_grid",
    "covariance_statistics",
    "drift_map",
    "endpoint",
    "energy",
    "energy_drift_bands",
    "grid_area",
    "hull_area",
    "learned_flow_figures",
    "learned_flow_measurements",
    "random_starts",
    "return_error",
    "rollout",
    "sliced_discrepancy",
    "symplectic_defect",
    "window_grid",
]
