"""Losses against public code: optax's here and now, and values that lightly's (1.5.22, MIT licence) gave.

Lightly's were computed in double precision on the arrays below; SIGReg's are in tests/goldens.
"""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contexts import context, values

from hamjepa_jax import parts
from hamjepa_jax.objectives import Seen
from hamjepa_jax.objectives.byol import byol_loss
from hamjepa_jax.objectives.coding_rate import coding_rate
from hamjepa_jax.objectives.objective import unit_length

Z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 5)).astype(np.float32))

PUBLIC = {  # objective -> (settings, the loss of lightly's class with the same)
    "simclr": (dict(temperature=0.3), 4.0482137196503185),  # NTXentLoss(temperature=0.3)
    "barlow_twins": (dict(redundancy_weight=0.1), 8.750025143510767),  # BarlowTwinsLoss(lambda_param=0.1)
    "vicreg": (dict(variance_weight=12.5), 55.78106372722697),  # VICRegLoss(), which halves the variance's 25
    "alignment_uniformity": (  # HypersphereLoss(t=3.0, lam=0.7, alpha=1.5)
        dict(t=3.0, uniformity_weight=0.7, alpha=1.5),
        -0.6442477825183546,
    ),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_loss_is_that_of_public_code(name):
    given, expected = PUBLIC[name]
    objective = parts.objectives[name].make(context(batch_size=8, embed_dim=5), values(name, **given))
    loss, _, _ = objective.of({}, Seen(Z, Z), objective.draw(0), 1)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_coding_rate_is_that_of_public_code():
    """The mean of tcr_loss over two views of unit vectors, whose eps is ε²."""
    np.testing.assert_allclose(coding_rate(unit_length(Z), eps=0.6)[0].mean(), 2.976242377423503, rtol=1e-5)


def test_byol_is_four_and_four_times_public_codes_negative_cosine():
    """NegativeCosineSimilarity()(a, b): each direction is 2 + 2 times it, and here both are the same."""
    np.testing.assert_allclose(byol_loss(Z, Z), 4 + 4 * 0.15366362808861384, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_is_optax_s(temperature):
    objective = parts.objectives["simclr"].make(
        context(batch_size=8, embed_dim=5), values("simclr", temperature=temperature)
    )
    labels = jnp.tile(jnp.arange(8), 2)
    expected = optax.losses.ntxent(Z.reshape(16, 5), labels, temperature=temperature)
    np.testing.assert_allclose(objective.of({}, Seen(Z, Z), (), 1)[0], expected, rtol=1e-5)
