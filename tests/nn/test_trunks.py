"""Trunks against forward passes written out in NumPy, and against PyTorch where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import golden_random, golden_weight
from safetensors.numpy import save_file

from hamjepa_jax import build, nn, parts
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.torch import encoder_from_state_dict, import_checkpoint, state_dict_from_encoder
from hamjepa_jax.interop.torch.checkpoint import parse
from hamjepa_jax.interop.torch.names import trunk_state_dict, variables_from_state_dict
from hamjepa_jax.interop.workdirs import read_networks
from hamjepa_jax.nn.trunks.vit import resampled

RESNETS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
VIT = dict(patch=4, image_size=16, dim=16, depth=2, heads=2)


def resnet(name, stem="cifar", layer=4, width=4):
    settings = parts.trunks[name].settings(stem=stem, token_layer=layer, width=width)
    return parts.trunks[name].make(settings, dtype=jnp.float32, whole=False)


def vit(whole=False, **changes):
    part = parts.trunks["vit_tiny"]
    return part.make(part.settings(**VIT | changes), dtype=jnp.float32, whole=whole)


def weighted(trunk, name, side):
    """The trunk's variables with the golden files' weights, and these under torchvision's or timm's names."""
    encoder = nn.TokenEncoder(trunk, None, 4, True)
    like = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False))
    empty = state_dict_from_encoder(jax.tree.map(lambda x: np.zeros(x.shape, np.float32), like), name)
    made = {k: golden_weight(k, v.shape).astype(np.float32) if v.ndim else v for k, v in empty.items()}
    for token in ("cls_token", "reg_token", "pos_embed"):
        made |= {token: 0.5 * golden_random(token, *made[token].shape).astype(np.float32)} if token in made else {}
    variables = variables_from_state_dict(made, like, name)
    own = {k: v["trunk"] for k, v in variables.items() if "trunk" in v}
    weights = {k: np.asarray(v, np.float64) for k, v in trunk_state_dict(variables, name).items()}
    return own, weights


# -- Forward passes by the papers, on torch's names and layouts, channels first ------


def conv2d(x, w, stride, pad):
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    k = w.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("bchwij,ocij->bohw", windows, w, optimize=True)


def numpy_resnet(w, x, counts, bottleneck, stem, layers):
    def bn(x, name):
        mean, var, scale, bias = (
            w[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    def relu(x):
        return np.maximum(x, 0)

    def block(x, name, stride):
        # (stride, padding) of each convolution; torchvision's bottleneck has its stride on the 3×3.
        steps = ((1, 0), (stride, 1), (1, 0)) if bottleneck else ((stride, 1), (1, 1))
        y = x
        for i, (s, pad) in enumerate(steps, 1):
            y = bn(conv2d(y, w[f"{name}.conv{i}.weight"], s, pad), f"{name}.bn{i}")
            y = relu(y) if i < len(steps) else y
        if f"{name}.downsample.0.weight" in w:
            x = bn(conv2d(x, w[f"{name}.downsample.0.weight"], stride, 0), f"{name}.downsample.1")
        return relu(x + y)

    x = relu(bn(conv2d(x, w["conv1.weight"], *((1, 1) if stem == "cifar" else (2, 3))), "bn1"))
    if stem == "imagenet":
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        x = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2].max((4, 5))
    for layer in range(1, layers + 1):
        for i in range(counts[layer - 1]):
            x = block(x, f"layer{layer}.{i}", 2 if layer > 1 and i == 0 else 1)
    return x


def gelu(x):
    erf = np.vectorize(__import__("math").erf)
    return x * (1 + erf(x / np.sqrt(2))) / 2


def numpy_vit(w, x, heads, patch):
    """All tokens after the final norm, those before the patches included."""

    def norm(x, name):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    b, _, height, width = x.shape
    patches = x.reshape(b, 3, height // patch, patch, width // patch, patch).transpose(0, 2, 4, 1, 3, 5)
    kernel = w["patch_embed.proj.weight"]
    x = patches.reshape(b, -1, kernel[0].size) @ kernel.reshape(len(kernel), -1).T + w["patch_embed.proj.bias"]
    before = [np.repeat(w[k], b, 0) for k in ("cls_token", "reg_token") if k in w]
    if "reg_token" in w:  # timm's no_embed_class
        x = np.concatenate([*before, x + w["pos_embed"]], 1)
    else:
        x = np.concatenate([*before, x], 1) + w["pos_embed"]
    for i in range(1 + max(int(k.split(".")[1]) for k in w if k.startswith("blocks."))):
        name = f"blocks.{i}"
        qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv")
        q, k, v = (a.reshape(b, -1, heads, a.shape[-1] // heads) for a in np.split(qkv, 3, -1))
        scores = np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + linear(np.einsum("bhij,bjhd->bihd", weights, v).reshape(x.shape), f"{name}.attn.proj")
        x = x + linear(gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
    return norm(x, "norm")


def images(side):
    return golden_random(f"trunk.x{side}", 2, side, side, 3).astype(np.float32)


def features(trunk, variables, x):
    return np.asarray(jax.jit(lambda v, x: trunk.apply(v, x, train=False))(variables, x))


def assert_near(got, want):
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize(
    "name, stem, layer, side",
    [("resnet18", "cifar", 1, 8), ("resnet34", "imagenet", 3, 32), ("resnet50", "cifar", 2, 8)]
    + [("resnet50", "imagenet", 4, 33)],
)
def test_resnets_are_those_written_out(name, stem, layer, side):
    trunk = resnet(name, stem, layer)
    variables, weights = weighted(trunk, name, side)
    x = images(side)
    want = numpy_resnet(weights, x.transpose(0, 3, 1, 2), RESNETS[name], name == "resnet50", stem, layer)
    assert_near(features(trunk, variables, x), want.transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    "changes", [{}, {"class_token": False}, {"registers": 3}, {"registers": 2, "class_token": False}]
)
def test_transformers_are_those_written_out(changes):
    trunk = vit(**changes)
    variables, weights = weighted(trunk, "vit_tiny", 16)
    x = images(16)
    want = numpy_vit(weights, x.transpose(0, 3, 1, 2), heads=2, patch=4)[:, -16:]
    assert_near(features(trunk, variables, x), want.reshape(2, 4, 4, 16))


def test_global_mode_takes_the_class_token_or_the_patches():
    variables, weights = weighted(vit(), "vit_tiny", 16)
    want = numpy_vit(weights, images(16).transpose(0, 3, 1, 2), heads=2, patch=4)
    assert_near(features(vit(whole=True, pool="class"), variables, images(16)), want[:, None, :1])
    assert_near(features(vit(whole=True), variables, images(16)).mean((1, 2)), want[:, 1:].mean(1))


def test_sizes_are_those_of_the_papers():
    """Parameters of the trunks; torchvision's and timm's networks without their classifiers have as many."""
    published = {
        "resnet18": 11_176_512, "resnet34": 21_284_672, "resnet50": 23_508_032,
        "vit_tiny": 5_524_416, "vit_small": 21_665_664, "vit_base": 85_798_656,
    }  # fmt: skip
    for name, count in published.items():
        part = parts.trunks[name]
        values = part.settings(stem="imagenet", token_layer=4) if "stem" in part.settings else part.settings()
        trunk = part.make(values, dtype=jnp.float32, whole=False)
        found = jax.eval_shape(lambda t=trunk: t.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False))
        assert sum(x.size for x in jax.tree.leaves(found["params"])) == count, name


def keys_cubic(x):
    """Keys' kernel with a = −1/2."""
    x = np.abs(x)
    return np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))


def numpy_resize(grid, size):
    """Rows of weights [size, grid]: bicubic between pixel centres, the kernel widened where the grid shrinks."""
    scale = grid / size
    centres = (np.arange(size) + 0.5) * scale - 0.5
    weights = keys_cubic((np.arange(grid)[None] - centres[:, None]) / max(scale, 1.0))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("rows, columns", [(6, 6), (3, 9), (4, 5), (1, 2)])
def test_positions_are_interpolated_as_stated(rows, columns):
    positions = golden_random("pos", 1, 25, 3).astype(np.float32)
    grid = positions.reshape(5, 5, 3)
    want = np.einsum("ri,cj,ijk->rck", numpy_resize(5, rows), numpy_resize(5, columns), grid)
    got = resampled(jnp.asarray(positions), 5, rows, columns)
    np.testing.assert_allclose(got, want.reshape(1, rows * columns, 3), atol=1e-5)
    assert np.array_equal(resampled(jnp.asarray(positions), 5, 5, 5), positions)


@pytest.mark.parametrize("size", [(6, 6), (14, 14), (3, 9), (2, 2)])
def test_positions_are_interpolated_as_torch_does(size):
    torch = pytest.importorskip("torch")
    positions = golden_random("pos", 1, 25, 3).astype(np.float32)
    grid = torch.from_numpy(positions.reshape(1, 5, 5, 3)).permute(0, 3, 1, 2)
    want = torch.nn.functional.interpolate(grid, size=size, mode="bicubic", antialias=True, align_corners=False)
    got = resampled(jnp.asarray(positions), 5, *size)
    np.testing.assert_allclose(got, want.permute(0, 2, 3, 1).reshape(1, -1, 3).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_features_are_torchvision_s(name):
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    trunk = resnet(name, "imagenet", 4, width=64)
    variables, weights = weighted(trunk, name, 64)
    network = getattr(torchvision.models, name)()
    weights = {k: torch.from_numpy(np.asarray(v, np.float32)) for k, v in weights.items()}
    assert not network.load_state_dict(weights, strict=False).unexpected_keys
    layers = torch.nn.Sequential(*list(network.eval().children())[:-2])
    with torch.no_grad():
        want = layers(torch.from_numpy(images(64).transpose(0, 3, 1, 2))).numpy()
    assert_near(features(trunk, variables, images(64)), want.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("registers, side", [(0, 16), (0, 24), (2, 16), (2, 8)])
def test_features_are_timm_s(registers, side):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    trunk = vit(registers=registers)
    variables, weights = weighted(trunk, "vit_tiny", 16)
    network = timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=0, dynamic_img_size=True,
        reg_tokens=registers, no_embed_class=registers > 0,
    ).eval()  # fmt: skip
    network.load_state_dict({k: torch.from_numpy(np.asarray(v, np.float32)) for k, v in weights.items()})
    with torch.no_grad():
        want = network.forward_features(torch.from_numpy(images(side).transpose(0, 3, 1, 2))).numpy()
    got = features(trunk, variables, images(side))
    assert_near(got.reshape(2, -1, 16), want[:, 1 + registers :])


# -- Weights in and out, settings ------


@pytest.mark.parametrize("name", ["resnet34", "resnet50", "vit_tiny"])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_an_encoder_comes_back_from_its_torch_names(name, norm):
    trunk = vit() if name.startswith("vit") else resnet(name, layer=2)
    module = nn.TokenEncoder(trunk, 2, 4, True, token_norm=norm)
    variables = module.init(jax.random.key(1), jnp.zeros((1, 16, 16, 3)), train=False)
    names = state_dict_from_encoder(variables, name)
    if name == "vit_tiny":
        # No weight shows the number of heads, so only the sizes with a name come back by themselves.
        with pytest.raises(ValueError, match=r"no weight shows vit\.heads of this trunk"):
            encoder_from_state_dict(names, stem=None, token_layer=None, token_hw=2, split_qp=True)
        again = variables_from_state_dict(names, variables, name)
    else:
        found, again = encoder_from_state_dict(names, stem="cifar", token_layer=2, token_hw=2, split_qp=True)
        assert found == module
    jax.tree.map(np.testing.assert_array_equal, again["params"], variables["params"])


def test_a_transformer_s_size_is_read_off_its_weights():
    part = parts.trunks["vit_tiny"]
    trunk = part.make(part.settings(registers=4, image_size=32), dtype=jnp.float32, whole=False)
    module = nn.TokenEncoder(trunk, None, 8, False, token_norm="layer")
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    names = state_dict_from_encoder(jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes), "vit_tiny")
    found, _ = encoder_from_state_dict(names, stem=None, token_layer=None, token_hw=None, split_qp=False)
    assert found == module


def test_the_import_asks_for_the_heads_of_a_size_without_a_name(tmp_path):
    _, weights = weighted(vit(), "vit_tiny", 16)
    save_file({f"backbone.{k}": v.astype(np.float32) for k, v in weights.items()}, tmp_path / "vit.safetensors")
    with pytest.raises(
        UserError, match=r"no weight shows encoder\.vit\.heads, .* give --override encoder\.vit\.heads=N"
    ):
        import_checkpoint(tmp_path / "vit.safetensors", tmp_path / "run", config="tests/tiny.py")
    given = ["encoder.vit.heads=2", "data.image_size=16"]
    config = import_checkpoint(
        tmp_path / "vit.safetensors", tmp_path / "run", config="tests/tiny.py", overrides=given
    )
    found = config.encoder.vit
    assert config.encoder.trunk == "vit_small" and (found.dim, found.depth, found.heads, found.patch) == (
        16,
        2,
        2,
        4,
    )
    got = read_networks(tmp_path / "run").params["encoder"]["trunk"]
    jax.tree.map(np.testing.assert_array_equal, got, weighted(vit(), "vit_tiny", 16)[0]["params"])


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
def test_a_classifier_s_transformer_is_a_bare_trunk(prefix):
    _, weights = weighted(vit(), "vit_tiny", 16)
    heads = {"head.weight": np.zeros((10, 16)), "fc.weight": np.zeros((10, 16)), "fc_norm.bias": np.zeros(16)}
    found = parse({"state_dict": {f"{prefix}{k}": v for k, v in (weights | heads).items()}, "epoch": 1})
    assert found.is_trunk and found.encoder.keys() == weights.keys()


REFUSED = {
    "heads": ({"heads": 3}, r"encoder\.vit\.heads 3: does not divide the 16 channels"),
    "image size": (
        {"image_size": 18},
        r"encoder\.vit\.image_size 18: encoder\.vit\.patch 4 does not divide it; use 16",
    ),
    "no class token": ({"class_token": False, "pool": "class"}, r"encoder\.vit\.pool 'class': .*set it to True"),
    "local views": ({}, r"encoder\.vit\.patch 4: does not divide images of 6×6 pixels; choose .*local_size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_of_a_transformer_that_cannot_work_are_refused(case, tiny_config):
    changes, message = REFUSED[case]
    config = tiny_config
    config.encoder.trunk, config.encoder.token_hw, config.views.num_local, config.views.local_size = (
        "vit_tiny",
        2,
        1,
        6,
    )
    config.encoder.vit.update(VIT | changes)
    with pytest.raises(UserError, match=message):
        build.check(config)


@pytest.mark.parametrize("name", ["resnet50", "vit_tiny"])
def test_bfloat16_changes_features_by_rounding_alone(name):
    """Parameters stay float32; a softmax or a norm in bfloat16 would change features by more."""
    part, found = parts.trunks[name], {}
    values = part.settings(**VIT) if name == "vit_tiny" else part.settings(token_layer=1, width=4)
    variables, _ = weighted(part.make(values, dtype=jnp.float32, whole=False), name, 16)
    for dtype in (jnp.float32, jnp.bfloat16):
        trunk = part.make(values, dtype=dtype, whole=False)
        found[dtype] = features(trunk, variables, images(16)).astype(np.float32)
        own = jax.eval_shape(lambda t=trunk: t.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False))
        assert {x.dtype for x in jax.tree.leaves(own)} == {jnp.dtype(jnp.float32)}
        assert jax.eval_shape(lambda t=trunk: t.apply(variables, images(16), train=False)).dtype == dtype
    one, other = found.values()
    assert 0 < np.abs(one - other).max() < 0.04 * np.abs(one).max()
