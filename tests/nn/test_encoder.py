"""The encoder against the published outputs, and what it leaves out."""

import functools
import json

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import golden_random, golden_weight

from hamjepa_jax import nn, parts
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.torch import encoder_from_state_dict
from hamjepa_jax.nn.encoder import adaptive_average_pool, flatten_tokens

CASES = {  # golden -> (image side, options)
    "cifar_layer3": (32, dict(stem="cifar", token_layer=3, token_hw=None, split_qp=True)),
    "cifar_layer3_nosplit": (32, dict(stem="cifar", token_layer=3, token_hw=None, split_qp=False)),
    "cifar_layer2": (32, dict(stem="cifar", token_layer=2, token_hw=None, split_qp=True)),
    "imagenet_layer3_hw8": (224, dict(stem="imagenet", token_layer=3, token_hw=8, split_qp=True)),
    "imagenet_layer4": (224, dict(stem="imagenet", token_layer=4, token_hw=None, split_qp=False)),
    "global": (32, dict(stem="cifar", token_layer=None, token_hw=None, split_qp=False)),
}


def golden_encoder(goldens, case, **options):
    names = json.loads(str(goldens("encoder")[f"{case}/names"]))
    state_dict = {k: golden_weight(k, s).astype(np.float32) for k, s in names.items() if s}
    return encoder_from_state_dict(state_dict, **options)


def largest_error(got, want):
    return np.abs(np.asarray(got) - want).max() / np.abs(want).max()


@pytest.mark.parametrize("case", CASES)
def test_encoder_goldens(case, goldens):
    side, options = CASES[case]
    module, variables = golden_encoder(goldens, case, **options)
    images = golden_random(f"enc.x{side}", 2, 3, side, side).astype(np.float32).transpose(0, 2, 3, 1)
    golden = goldens("encoder")
    out = jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, images)
    assert largest_error(out, golden[f"{case}/eval"]) < 1e-4
    train = jax.jit(lambda v, x: module.apply(v, x, train=True, mutable=["batch_stats"]))
    out, updated = train(variables, images)
    # Two images' batch statistics amplify rounding in the last layers.
    assert largest_error(out, golden[f"{case}/train"]) < 1e-4
    trunk = updated["batch_stats"]["trunk"]
    if case == "global":
        np.testing.assert_allclose(
            trunk["stem_bn"]["mean"], golden[f"{case}/after_train/backbone.1.running_mean"], atol=1e-5
        )
    else:
        np.testing.assert_allclose(
            trunk["layer1_0"]["bn1"]["mean"], golden[f"{case}/after_train/layer1.0.bn1.running_mean"], atol=1e-5
        )


def test_layers_after_the_tokens_do_not_exist():
    module = nn.TokenEncoder(nn.ResNet18("cifar", 2), None, 8, True)
    init = functools.partial(module.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    layers = {name[:6] for name in shapes["params"]["trunk"] if name.startswith("layer")}
    assert layers == {"layer1", "layer2"}


@pytest.mark.slow
def test_initialisation_has_the_stated_scales():
    variables = nn.TokenEncoder(nn.ResNet18("cifar", 3), None, 32, True).init(
        jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
    )
    kernel = variables["params"]["trunk"]["layer2_0"]["conv1"]["kernel"]  # 3×3, 64 -> 128
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)
    token = variables["params"]["token_conv"]["kernel"]
    assert 0.95 / 16 < np.abs(token).max() <= 1 / 16  # fan-in 256
    assert np.array_equal(variables["params"]["token_bn"]["scale"], np.ones(32))
    mlp = nn.MLP(256, 2, 1).init(jax.random.key(0), jnp.zeros((1, 1024)))["params"]["hidden0"]["dense"]
    for leaf in mlp.values():
        assert 0.95 / 32 < np.abs(leaf).max() <= 1 / 32


@pytest.mark.parametrize(
    "stem, given, uniform",
    [
        ("cifar", None, True),
        ("cifar", "uniform", True),
        ("cifar", "he_normal", False),
        ("imagenet", None, False),
        ("imagenet", "uniform", True),
    ],
)
def test_the_stems_initial_values(stem, given, uniform):
    part = parts.trunks["resnet18"]
    trunk = part.make(part.settings(stem=stem, stem_init=given, token_layer=2), dtype=jnp.float32, whole=False)
    params = trunk.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)["params"]
    side = 3 if stem == "cifar" else 7
    kernel = np.asarray(params["stem_conv"]["kernel"])
    bound = 1 / np.sqrt(3 * side**2)
    std = bound / np.sqrt(3) if uniform else np.sqrt(2 / (64 * side**2))
    np.testing.assert_allclose(kernel.std(), std, rtol=0.04)
    assert (np.abs(kernel).max() <= bound) == uniform
    if stem == "cifar":
        np.testing.assert_allclose(std, 0.111 if uniform else 0.059, atol=6e-4)


def test_another_initialisation_of_the_stem_is_refused():
    with pytest.raises(UserError, match=r"stem_init 'xavier': must be one of uniform, he_normal, or None"):
        parts.trunks["resnet18"].settings(stem_init="xavier")


def token_encoder(dtype):
    return nn.TokenEncoder(nn.ResNet18("cifar", 2, 8, dtype), None, 8, True, dtype)


@pytest.mark.slow
def test_bfloat16_keeps_parameters_statistics_and_states_in_float32():
    module = token_encoder(jnp.bfloat16)
    images = jnp.asarray(golden_random("bf16", 4, 16, 16, 3), jnp.float32)
    variables = module.init(jax.random.key(0), images, train=False)
    out, updated = module.apply(variables, images, train=True, mutable=["batch_stats"])
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated, out))} == {jnp.dtype("float32")}
    exact = token_encoder(jnp.float32).apply(variables, images, train=True, mutable=["batch_stats"])[0]
    assert 0 < largest_error(out, np.asarray(exact)) < 0.1


def test_tokens_are_split_channelwise():
    tokens = jnp.arange(2 * 2 * 3 * 4.0).reshape(2, 2, 3, 4)
    z = flatten_tokens(tokens, True)
    np.testing.assert_array_equal(z[:, :12], tokens[..., :2].reshape(2, -1))
    np.testing.assert_array_equal(z[:, 12:], tokens[..., 2:].reshape(2, -1))
    with pytest.raises(ValueError, match="3"):
        flatten_tokens(tokens[..., :3], True)


@pytest.mark.parametrize("size", [1, 5, 8, 14])
def test_adaptive_pool_averages_the_stated_bins(size):
    x = np.random.default_rng(0).normal(size=(2, 14, 14, 3)).astype(np.float32)
    want = np.empty((2, size, size, 3))
    for i in range(size):
        for j in range(size):
            rows = slice(i * 14 // size, -(-(i + 1) * 14 // size))
            columns = slice(j * 14 // size, -(-(j + 1) * 14 // size))
            want[:, i, j] = x[:, rows, columns].mean((1, 2))
    np.testing.assert_allclose(adaptive_average_pool(jnp.asarray(x), size), want, atol=1e-6)
    ones = jnp.ones((1, 14, 14, 1), jnp.bfloat16)  # whatever the width of a bin, in half precision too
    assert (adaptive_average_pool(ones, size) == 1).all()


# -- Trunks ------


@pytest.mark.parametrize("whole, shape", [(False, (2, 8, 8, 8)), (True, (2, 2, 2, 32))])
def test_settings_make_the_trunk(whole, shape):
    part = parts.trunks["resnet18"]
    assert part.block == "encoder"
    trunk = part.make(part.settings(stem="cifar", token_layer=2, width=4), dtype=jnp.bfloat16, whole=whole)
    out = jax.eval_shape(
        lambda: trunk.init_with_output(jax.random.key(0), jnp.ones((2, 16, 16, 3)), train=False)[0]
    )
    assert out.shape == shape and out.dtype == jnp.bfloat16


class Nested(flax.linen.Module):
    """An encoder that makes its own trunk, as they did before trunks were parts."""

    @flax.linen.compact
    def __call__(self, images, train):
        x = nn.ResNet18("imagenet", 2, 4, name="trunk")(images, train)
        return flax.linen.Dense(3, name="fc")(x)


@pytest.mark.parametrize("encoder", [nn.TokenEncoder, nn.GlobalEncoder])
def test_a_trunk_has_the_names_and_initial_values_of_one_made_inside(encoder):
    options = dict(embed_dim=3) if encoder is nn.GlobalEncoder else dict(token_hw=None, token_dim=4, split_qp=True)
    images = jnp.ones((1, 16, 16, 3))
    got = encoder(nn.ResNet18("imagenet", 2, 4), **options).init(jax.random.key(5), images, train=False)
    want = Nested().init(jax.random.key(5), images, train=False)
    heads = {"fc"} if encoder is nn.GlobalEncoder else {"token_conv", "token_bn"}
    assert set(got["params"]) == {"trunk"} | heads
    for collection in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, got[collection]["trunk"], want[collection]["trunk"])


class Patches(flax.linen.Module):
    """A trunk without batch statistics."""

    @flax.linen.compact
    def __call__(self, images, train):
        return flax.linen.LayerNorm()(flax.linen.Conv(8, (4, 4), strides=4)(images))


def test_any_module_may_be_a_trunk():
    images = jnp.ones((3, 16, 16, 3))
    whole = nn.GlobalEncoder(Patches(), 5)
    variables = whole.init(jax.random.key(0), images, train=True)
    assert set(variables) == {"params"} and whole.apply(variables, images, train=True).shape == (3, 5)
    tokens = nn.TokenEncoder(Patches(), 2, 6, True)
    variables = tokens.init(jax.random.key(0), images, train=False)
    assert set(variables["batch_stats"]) == {"token_bn"}
    assert tokens.apply(variables, images, train=False).shape == (3, 24)


class Flat(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, images, train):
        return flax.linen.Dense(5)(images)


def test_a_trunk_without_a_feature_map_is_refused():
    with pytest.raises(ValueError, match=r"\[b, h, w, c\].*\(2, 5\)"):
        nn.TokenEncoder(Flat(), None, 4, True).init(jax.random.key(0), jnp.ones((2, 3)), train=False)
