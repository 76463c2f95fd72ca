"""Hamiltonian energies, fixed-step integrators and measurements of the maps they generate."""

from hamjepa_jax.dynamics.hamiltonians import general, half_square, quadratic, separable
from hamjepa_jax.dynamics.integrators import METHODS, integrate, leapfrog, stepper
from hamjepa_jax.dynamics.structure import log_abs_det, reversal_error, singular_values, symplectic_defect

__all__ = [
    "METHODS",
    "general",
    "half_square",
    "integrate",
    "leapfrog",
    "log_abs_det",
    "quadratic",
    "reversal_error",
    "separable",
    "singular_values",
    "stepper",
    "symplectic_defect",
]
