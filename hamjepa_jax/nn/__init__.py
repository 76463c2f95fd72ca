"""Flax Linen modules: encoders to phase-space states, potentials, projectors; predictors as plain functions."""

from hamjepa_jax.nn.encoder import GlobalEncoder, TokenEncoder
from hamjepa_jax.nn.masked import token_network
from hamjepa_jax.nn.mlp import MLP, Network, Projector, network
from hamjepa_jax.nn.predictors import (
    Predictor,
    check_horizon,
    hamiltonian_predictor,
    identity_predictor,
    mlp_predictor,
)
from hamjepa_jax.nn.trunks import ResNet18, ResNet34, ResNet50, ViT

__all__ = [
    "MLP",
    "GlobalEncoder",
    "Network",
    "Predictor",
    "Projector",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "TokenEncoder",
    "ViT",
    "check_horizon",
    "hamiltonian_predictor",
    "identity_predictor",
    "mlp_predictor",
    "network",
    "token_network",
]
