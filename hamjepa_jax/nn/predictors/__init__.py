"""Predictors of one view's state from another's: one file each, as pure functions over a parameter tree."""

from hamjepa_jax.nn.predictors.hamiltonian import ENERGIES, hamiltonian_predictor
from hamjepa_jax.nn.predictors.identity import identity_predictor
from hamjepa_jax.nn.predictors.mlp import mlp_predictor
from hamjepa_jax.nn.predictors.predictor import SHARED, Predictor, check_horizon
from hamjepa_jax.parts import register_all

__all__ = [
    "ENERGIES",
    "SHARED",
    "Predictor",
    "check_horizon",
    "hamiltonian_predictor",
    "identity_predictor",
    "mlp_predictor",
]

register_all(__name__, __path__)
