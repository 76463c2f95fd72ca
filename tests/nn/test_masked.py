"""Tokens predicted at places that were not seen."""

import jax
import jax.numpy as jnp
import numpy as np

from hamjepa_jax import build, nn
from hamjepa_jax.config import shipped

PLACES, C = 6, 4


def test_a_prediction_is_of_its_place_and_the_order_of_the_known_plays_no_part():
    network = nn.token_network(places=PLACES, dim=8, depth=1, heads=2, name="predictor")
    params = network.init(jax.random.key(0), C)
    predicted = jax.jit(network.apply)
    tokens = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, C)), jnp.float32)
    at, wanted = jnp.asarray([0, 2, 5]), jnp.asarray([1, 4])
    found = predicted(params, tokens, at, wanted)
    assert found.shape == (2, 2, C) and np.abs(found[:, 0] - found[:, 1]).max() > 1e-4
    np.testing.assert_allclose(predicted(params, tokens, at, wanted[::-1]), found[:, ::-1], atol=1e-6)
    np.testing.assert_allclose(predicted(params, tokens[:, ::-1], at[::-1], wanted), found, atol=1e-6)
    assert np.abs(predicted(params, tokens, at[::-1], wanted) - found).max() > 1e-4


def test_an_encoder_that_leaves_tokens_out_has_a_network_of_its_grid():
    config = shipped("cifar100_i_jepa")
    rows, columns = build.token_grid(config)
    make = build.objective_context(config, build.build_predictor(config)).token_network
    init = make(dim=8, depth=1, heads=2, name="predictor").init
    params = jax.eval_shape(lambda key: init(key, C), jax.random.key(0))
    assert params["pos_embed"].shape == (rows * columns, 8)
