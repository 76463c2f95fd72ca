"""Masked prediction: the masks, the loss, and an encoder that sees the visible tokens alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contexts import context, values

from hamjepa_jax import nn, objectives
from hamjepa_jax.errors import UserError
from hamjepa_jax.nn.masked import TokenNetwork
from hamjepa_jax.objectives import Embedded, Seen, i_jepa

V, B, C, PLACES = 2, 3, 4, 16


def linear(**options):
    """A network whose prediction at a place is the mean visible token times a number, plus the place."""
    del options

    def apply(params, tokens, at, wanted):
        return params * tokens.mean(axis=1, keepdims=True) + wanted[None, :, None].astype(jnp.float32)

    return TokenNetwork(lambda key, channels: jnp.float32(0.5), apply)


def run_of(**changes):
    options = dict(batch_size=B, embed_dim=PLACES * C, grid=objectives.Grid(4, 4, C), token_network=linear)
    return context(**(options | changes))


def made(run=None, **given):
    given = dict(block_share=0.25, num_blocks=3) | given
    return i_jepa.i_jepa(run or run_of(), values("i_jepa", **given))


def test_no_visible_token_is_hidden_and_every_step_has_its_own_masks():
    objective = made()
    draws = [objective.draw(step) for step in range(20)]
    for draw in draws:
        assert draw["keep"].shape == (4,) and draw["hidden"].shape == (3, 4)
        assert not set(np.asarray(draw["keep"])) & set(np.asarray(draw["hidden"]).ravel())
        for block in np.asarray(draw["hidden"]):  # 2 × 2 tokens of the 4 × 4
            assert sorted(block - block.min()) == [0, 1, 4, 5] and block.min() % 4 < 3
    assert len({np.asarray(draw["hidden"]).tobytes() for draw in draws}) > 15
    np.testing.assert_array_equal(draws[3]["keep"], made().draw(3)["keep"])


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_loss_is_its_formula(weight):
    objective = made(sigreg_weight=weight)
    draw = jax.device_get(objective.draw(2))
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(V, B, PLACES, C)).astype(np.float32)
    tokens = rng.normal(size=(V, B, 4, C)).astype(np.float32)
    z, h = tokens.reshape(V, B, -1), whole.reshape(V, B, -1)
    seen = Seen(jnp.asarray(z), jnp.asarray(z), Embedded(jnp.asarray(h), jnp.asarray(h)), ())
    got, _, _ = objective.of(jnp.float32(0.5), seen, draw, 1)
    targets = (whole - whole.mean(-1, keepdims=True)) / np.sqrt(whole.var(-1, keepdims=True) + 1e-5)
    errors = []
    for block in draw["hidden"]:
        predicted = 0.5 * tokens.mean(2, keepdims=True) + block[:, None]
        errors.append(((predicted - targets[:, :, block]) ** 2).mean())
    sigreg = objectives.sigreg(jnp.asarray(tokens.mean(2)), draw["directions"], **i_jepa.QUADRATURE)
    np.testing.assert_allclose(got, np.mean(errors) + weight * sigreg, rtol=1e-5)
    # The targets send no gradient, and the visible tokens do.
    through = jax.grad(
        lambda z, h: objective.of(0.5, seen._replace(z=z, teacher=Embedded(h, h)), draw, 1)[0], (0, 1)
    )
    by_z, by_h = through(jnp.asarray(z), jnp.asarray(h))
    assert np.abs(by_z).min() > 0 and not np.abs(by_h).any()


def test_an_encoder_sees_what_is_kept_and_nothing_else():
    trunk = nn.trunks.ViT(8, 2, 2, 2, 4)
    encoder = nn.TokenEncoder(trunk=trunk, token_hw=None, token_dim=4, split_qp=False, token_norm="layer")
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = encoder.init(jax.random.key(1), images, False)
    encode = jax.jit(lambda images, keep: encoder.apply(variables, images, False, keep))
    everything = encoder.apply(variables, images, False)
    np.testing.assert_allclose(encode(images, jnp.arange(16)), everything, atol=1e-5)
    keep = jnp.array([1, 6, 11])
    kept = encode(images, keep)
    assert kept.shape == (2, 12)
    np.testing.assert_array_equal(encode(images.at[:, 0:2, 0:2].add(1.0), keep), kept)  # place 0
    assert np.abs(encode(images.at[:, 0:2, 2:4].add(1.0), keep) - kept).max() > 1e-3  # place 1


@pytest.mark.slow
def test_the_network_tells_places_apart_and_reads_the_tokens():
    network = nn.token_network(places=PLACES, dim=8, depth=1, heads=2, name="i_jepa")
    params = network.init(jax.random.key(0), C)
    tokens = jax.random.normal(jax.random.key(1), (2, 3, C))
    at, wanted = jnp.array([0, 5, 7]), jnp.array([2, 9])
    out = network.apply(params, tokens, at, wanted)
    assert out.shape == (2, 2, C) and np.abs(out[:, 0] - out[:, 1]).max() > 1e-4
    np.testing.assert_allclose(out[:, ::-1], network.apply(params, tokens, at, wanted[::-1]), atol=1e-6)
    assert np.abs(network.apply(params, tokens + jnp.arange(C)[None, None], at, wanted) - out).max() > 1e-4


@pytest.mark.parametrize(
    "run, given, message",
    [
        (dict(token_network=None), {}, r"objective\.name 'i_jepa': needs tokens"),
        (dict(num_local=2), {}, r"views\.num_local 2"),
        ({}, dict(num_blocks=4), r"objective\.i_jepa\.block_share 0\.25: 4 blocks can hide all 16 tokens"),
        ({}, dict(targets="encoder"), r"objective\.i_jepa\.sigreg_weight 0\.0: must be above 0"),
        ({}, dict(predictor_heads=5), r"objective\.i_jepa\.predictor_heads 5"),
    ],
)
def test_what_cannot_be_masked_is_refused(run, given, message):
    with pytest.raises(UserError, match=message):
        made(run_of(**run), **given)
