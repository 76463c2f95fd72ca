"""The convolution's gradient by products of patches, against XLA's own and against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax.nn import convolution as module
from hamjepa_jax.nn.convolution import convolution, kernel_gradient
from hamjepa_jax.nn.layers import conv

# (images, height, width, channels, features, kernel, stride, padding)
SHAPES = {
    "3x3": (6, 9, 9, 5, 7, (3, 3), 1, 1),
    "stride 2 on an even map": (6, 8, 8, 4, 3, (3, 3), 2, 1),
    "stride 2 on an odd map": (6, 9, 7, 4, 3, (3, 3), 2, 1),
    "7x7, stride 2": (2, 17, 12, 3, 4, (7, 7), 2, 3),
    "1x1": (6, 5, 4, 6, 2, (1, 1), 1, 0),
    "1x1, stride 2": (6, 5, 4, 6, 2, (1, 1), 2, 0),
    "an oblong kernel": (6, 7, 9, 2, 3, (3, 5), 1, 1),
    "a prime number of images": (7, 6, 6, 3, 4, (3, 3), 1, 1),
    "one image": (1, 6, 6, 3, 4, (3, 3), 1, 1),
}


def case(n, height, width, channels, features, window, stride, padding, dtype=np.float32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, height, width, channels)).astype(dtype)
    rows, columns = ((s + 2 * padding - k) // stride + 1 for s, k in zip((height, width), window, strict=True))
    dy = rng.normal(size=(n, rows, columns, features)).astype(dtype)
    return x, dy, window, (stride, stride), ((padding, padding), (padding, padding))


def by_definition(x, dy, window, strides, padding):
    """Σ over images and positions of a pixel of the window and the result's gradient, in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    _, rows, columns, _ = dy.shape
    found = np.zeros((*window, x.shape[-1], dy.shape[-1]))
    for i, j in np.ndindex(*window):
        seen = x[:, i : i + strides[0] * rows : strides[0], j : j + strides[1] * columns : strides[1]]
        found[i, j] = np.einsum("nhwc,nhwk->ck", seen[:, :rows, :columns], dy.astype(np.float64))
    return found


@pytest.mark.parametrize("at_once", [1, 2**20])
@pytest.mark.parametrize("name", SHAPES)
def test_the_kernels_gradient_is_the_sum_that_defines_it(name, at_once, monkeypatch):
    monkeypatch.setattr(module, "PATCHES", at_once)  # One image at a time, and all of them.
    given = case(*SHAPES[name])
    expected = by_definition(*given)
    got = jax.jit(lambda x, dy: kernel_gradient(x, dy, *given[2:]))(*given[:2])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_narrow_numbers_are_summed_in_float32():
    x, dy, *static = case(64, 16, 16, 2, 2, (3, 3), 1, 1)
    x, dy = (jnp.asarray(a + 1, jnp.bfloat16) for a in (x, dy))
    got = kernel_gradient(x, dy, *static)
    assert got.dtype == jnp.float32
    expected = by_definition(*(np.asarray(a, np.float64) for a in (x, dy)), *static)
    np.testing.assert_allclose(got, expected, rtol=1e-4)


@pytest.fixture
def one_device(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(module, "SMALL", 0)


def gradients(layer, variables, x):
    """Of a sum over the layer's result, with respect to its kernel and its images."""
    return jax.jit(jax.grad(lambda v, x: (jnp.sin(layer.apply(v, x)) ** 2).sum(), (0, 1)))(variables, x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_layers_gradients_are_xlas(one_device, monkeypatch, dtype, kernel, stride):
    layer = conv(True, 6, kernel, stride, dtype, "conv")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 10, 10, 3)), dtype)
    variables = layer.init(jax.random.key(0), x)
    ours = gradients(layer, variables, x)
    assert "scan" in str(jax.make_jaxpr(jax.grad(lambda v: layer.apply(v, x).sum()))(variables))
    monkeypatch.setattr(module, "SMALL", 2**62)
    for got, expected in zip(*map(jax.tree.leaves, (ours, gradients(layer, variables, x))), strict=True):
        assert got.dtype == expected.dtype
        close = 1e-5 if dtype == jnp.float32 else 0.02
        got, expected = (np.asarray(a, np.float32) for a in (got, expected))
        np.testing.assert_allclose(got, expected, rtol=close, atol=close * np.abs(expected).max())


def test_out_of_training_a_layer_has_forward_mode_derivatives(one_device):
    layer, x = conv(False, 6, 3, 1, jnp.float32, "conv"), jnp.ones((2, 6, 6, 3))
    variables = layer.init(jax.random.key(0), x)
    _, slope = jax.jvp(lambda x: layer.apply(variables, x), (x,), (x,))
    np.testing.assert_allclose(slope, layer.apply(variables, x), rtol=1e-6)  # It is linear.


def test_only_large_convolutions_on_one_cpu_have_loops(one_device, monkeypatch):
    x, kernel = jnp.ones((8, 8, 8, 4)), jnp.ones((3, 3, 4, 4))

    def loops(platform):
        def total(kernel):
            return convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), precision=None).sum()

        program = jax.jit(jax.grad(total)).trace(kernel).lower(lowering_platforms=(platform,))
        return program.as_text().count("stablehlo.while")

    assert [loops(platform) for platform in ("cpu", "cuda", "tpu")] == [1, 0, 0]
    multiplications = 8 * 8 * 8 * 4 * 9 * 4
    for least, expected in ((multiplications, 1), (multiplications + 1, 0)):
        monkeypatch.setattr(module, "SMALL", least)
        assert loops("cpu") == expected
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert loops("cpu") == 0
