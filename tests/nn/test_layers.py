"""Batch normalisation against float64, and over devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from hamjepa_jax.aot import hlo
from hamjepa_jax.aot.collectives import find_collectives
from hamjepa_jax.nn.layers import batch_norm

NORM = batch_norm(True, jnp.float32, "bn")


def normalise(variables, x):
    return NORM.apply(variables, x, mutable=["batch_stats"])


def initial(channels=4):
    return NORM.init(jax.random.key(0), jnp.ones((2, 1, 1, channels)))


def maps(ratio, n=64):
    """Feature maps [n, 8, 8, 4] of standard deviation 1 about a mean of `ratio`."""
    return (np.random.default_rng(0).normal(size=(n, 8, 8, 4)) + ratio).astype(np.float32)


@pytest.mark.parametrize("ratio", [0, 100, 1000, 3000])
def test_a_mean_far_larger_than_the_deviation_costs_no_digits(ratio):
    x = maps(ratio)
    exact = x.astype(np.float64)
    mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    out, updated = jax.jit(normalise)(initial(), x)
    assert np.abs(out - (exact - mean) / np.sqrt(var + 1e-5)).max() < 1e-2
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * var, rtol=1e-4)


def test_its_gradient_is_that_of_float64():
    x, weights = maps(1000, n=8), np.random.default_rng(1).normal(size=(8, 8, 8, 4)).astype(np.float32)

    def value(x):
        return (jnp.asarray(weights, x.dtype) * normalise(initial(), x)[0]).sum()

    got = jax.grad(value)(jnp.asarray(x))
    exact = x.astype(np.float64)
    y = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    along = weights - weights.mean((0, 1, 2)) - y * (weights * y).mean((0, 1, 2))
    np.testing.assert_allclose(got, along / np.sqrt(exact.var((0, 1, 2)) + 1e-5), atol=1e-2)


@pytest.mark.parametrize("ratio", [0, 1000])
def test_statistics_are_those_of_the_global_batch(ratio):
    results = []
    for devices in (1, 8):
        mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))
        x = jax.device_put(maps(ratio), NamedSharding(mesh, PartitionSpec("data")))
        results.append(jax.device_get(jax.jit(normalise)(initial(), x)))
    # Rounding of the mean alone: 1000 in float32 has steps of 6e-5.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 + 1e-6 * ratio), *results)


def test_it_is_flaxs_with_the_centred_variance():
    flax = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5, use_fast_variance=False)
    x, variables = jnp.asarray(maps(3)), initial()
    for ours, theirs in (
        (NORM, flax),
        (batch_norm(False, jnp.float32, "bn"), flax.clone(use_running_average=True)),
    ):

        def loss(x, module):
            y, updated = module.apply(variables, x, mutable=["batch_stats"])
            return jnp.sin(3 * y).sum(), (y, updated)

        got, expected = (jax.grad(loss, has_aux=True)(x, module) for module in (ours, theirs))
        assert jax.tree.structure(got) == jax.tree.structure(expected)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), got, expected)


def test_bfloat16_takes_one_pass_about_the_running_mean_and_is_as_exact_as_bfloat16_allows():
    norm = batch_norm(True, jnp.bfloat16, "bn")
    x = jnp.asarray(maps(100), jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    mean, var = exact.mean((0, 1, 2)), exact.var((0, 1, 2))
    rounding = np.abs(exact - maps(100)).max()  # Of x itself, in standard deviations.
    assert rounding > 0.1
    for running_mean, tolerance in ((0.0, 0.1 * rounding), (99.0, 1e-4)):
        variables = initial()
        variables["batch_stats"]["mean"] += running_mean
        y, updated = norm.apply(variables, x, mutable=["batch_stats"])
        assert y.dtype == jnp.bfloat16 and updated["batch_stats"]["var"].dtype == jnp.float32
        np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.9 * running_mean + 0.1 * mean, rtol=1e-5)
        np.testing.assert_allclose(10 * updated["batch_stats"]["var"] - 9, var, rtol=tolerance)
        assert (
            np.abs(np.asarray(y, np.float64) - (exact - mean) / np.sqrt(var + 1e-5)).max() < 0.1 * rounding + 0.01
        )
    # One pass: the moments, then those of the gradient.
    assert exchanges(norm, jnp.bfloat16) == ["all-reduce"] * 2


def exchanges(norm, dtype):
    """Kinds of the collectives of a training step on eight devices."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    x = jax.device_put(jnp.asarray(maps(0), dtype), NamedSharding(mesh, PartitionSpec("data")))

    def loss(x):
        y, updated = norm.apply(initial(), x, mutable=["batch_stats"])
        return jnp.sin(y.astype(jnp.float32)).sum(), updated

    grad = jax.jit(jax.grad(loss, has_aux=True))
    return [c.kind for c in find_collectives(hlo.parse(grad.lower(x).compile().as_text()), 8)]


def test_the_gradient_costs_one_exchange_between_devices():
    """Two in the forward direction, the second of the centred moments; in the gradient all sums go together."""
    assert exchanges(NORM, jnp.float32) == ["all-reduce"] * 3


def test_names_are_those_of_weights_kept_before():
    variables = initial()
    assert set(variables["params"]) == {"scale", "bias"} and set(variables["batch_stats"]) == {"mean", "var"}
