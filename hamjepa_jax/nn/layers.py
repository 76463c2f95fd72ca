"""Convolution, batch normalisation and initialisers shared by the networks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# The trunk's convolutions, but for the CIFAR stem's: He-normal with fan-out (He et al., 2015).
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# uniform(−1/√fan_in, 1/√fan_in): a uniform of half-width w has variance w²/3.
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

# Of batch normalisation: the share of a running average that each step keeps, and what is added to a variance.
MOMENTUM, EPSILON = 0.9, 1e-5


def exact_precision(dtype: Any) -> jax.lax.Precision | None:
    """Matrix products in float32 are to be float32 ones: by default GPUs round inputs to TF32 and TPUs to bf16."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def conv(features: int, kernel: int, stride: int, dtype: Any, name: str, kernel_init=he_normal_fan_out) -> nn.Conv:
    """A bias-free convolution with explicit symmetric padding: Flax's "SAME" is asymmetric at stride 2."""
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=kernel // 2,
        use_bias=False,
        dtype=dtype,
        precision=exact_precision(dtype),
        kernel_init=kernel_init,
        name=name,
    )


def batch_norm(train: bool, dtype: Any, name: str) -> "BatchNorm":
    """Batch normalisation with float32 statistics, over the global batch when jitted on sharded arrays."""
    return BatchNorm(train, dtype, name=name)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last: [..., c] -> [..., c]. Running averages have momentum 0.9.

    Flax's own has either a variance that loses its digits if the mean is large, or one whose gradient costs another
    pass over the array and another exchange between devices; see `mean_and_variance`.

    Attributes:
      train: whether the batch's statistics are used, and the running ones updated; else the running ones are used.
      dtype: of the result; the arithmetic is float32.
    """

    train: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1:]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        mean, var = running_mean.value, running_var.value
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.train:
            mean, var = mean_and_variance(x)
            if not self.is_initializing():
                running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
                running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        axes = tuple(range(x.ndim - 1))
        mean, factor, bias = (jnp.expand_dims(a, axes) for a in (mean, jax.lax.rsqrt(var + EPSILON) * scale, bias))
        return ((x - mean) * factor + bias).astype(self.dtype)


def mean_and_variance(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over all axes but the last: [..., c] -> [c], [c].

    The variance is the mean of (x − mean x)²: E[x²] − E[x]² loses its digits if the mean is large, as in a run that
    collapses. Its derivative by the mean is 0, so the gradient need not go through the mean.
    """
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    return mean, jnp.square(x - jnp.expand_dims(jax.lax.stop_gradient(mean), axes)).mean(axes)


class Linear(nn.Module):
    """A float32 linear layer with weights and bias uniform in ±1/√fan_in: [..., n] -> [..., features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        bound = x.shape[-1] ** -0.5

        def bias_init(key, shape, dtype=jnp.float32):
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        dense = nn.Dense(
            self.features,
            precision=jax.lax.Precision.HIGHEST,
            kernel_init=uniform_fan_in,
            bias_init=bias_init,
            name="dense",
        )
        return dense(x)
