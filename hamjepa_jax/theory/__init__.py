"""The paper's theorems as functions of matrices, checked in tests/theory and drawn by a command.

Figures: `python -m hamjepa_jax.theory --out DIR`.
"""

from hamjepa_jax.theory.collapse import PENALTIES, collapse_examples, penalties, smallest_eigenvalue_bound
from hamjepa_jax.theory.couplings import cross_errors, joint_covariance, optimal_predictor, quarter_turn
from hamjepa_jax.theory.minimax import (
    gaussian_entropy,
    gibbs_covariances,
    isotropic_covariance,
    minimax_covariance,
    misalignment,
    price_of_isotropy,
    worst_case_variance,
    worst_geometry,
    worst_task_direction,
)

__all__ = [
    "PENALTIES",
    "collapse_examples",
    "cross_errors",
    "gaussian_entropy",
    "gibbs_covariances",
    "isotropic_covariance",
    "joint_covariance",
    "minimax_covariance",
    "misalignment",
    "optimal_predictor",
    "penalties",
    "price_of_isotropy",
    "quarter_turn",
    "smallest_eigenvalue_bound",
    "worst_case_variance",
    "worst_geometry",
    "worst_task_direction",
]
