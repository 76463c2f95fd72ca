"""A small run as objectives see it."""

from hamjepa_jax import nn, parts
from hamjepa_jax.objectives import Context, Grid


def predictor(**changes):
    """A narrow potential, two steps of leapfrog."""
    options = dict(
        energy="separable", method="leapfrog", step_size=0.05, num_steps=2, hidden=16, depth=2, base_coeff=0.1
    )
    return nn.hamiltonian_predictor(**(options | changes))


def context(**changes):
    """Two global views of 16 examples; states [q; p] of 4×4 tokens with 2 channels each."""
    fields = dict(
        num_global=2,
        num_local=0,
        batch_size=16,
        embed_dim=64,
        grid=Grid(4, 4, 2),
        seed=0,
        predictor=predictor(),
        residual_scale=lambda epoch: 0.02,
        horizon=None,
        network=nn.network,
        optimizer=parts.Values(spectrum_learning_rate=1e-3, spectrum_interval=1, b1=0.9, b2=0.999, eps=1e-8),
    )
    return Context(**(fields | changes))


def values(name, **given):
    """Settings of an objective, and of the one it extends: the defaults but for those given."""
    part = parts.objectives[name]
    fields = part.settings
    if part.about.get("extends"):
        fields = parts.objectives[part.about["extends"]].settings | fields
    return fields(**given)
