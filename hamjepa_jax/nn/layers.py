"""Convolution, batch normalisation and initialisers shared by the networks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hamjepa_jax.nn.convolution import convolution

# The trunk's convolutions, but for the CIFAR stem's: He-normal with fan-out (He et al., 2015).
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# uniform(−1/√fan_in, 1/√fan_in): a uniform of half-width w has variance w²/3.
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

# Of batch normalisation: the share of a running average that each step keeps, and what is added to a variance.
MOMENTUM, EPSILON = 0.9, 1e-5


def exact_precision(dtype: Any) -> jax.lax.Precision | None:
    """Matrix products in float32 are to be float32 ones: by default GPUs round inputs to TF32 and TPUs to bf16."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def conv(
    train: bool, features: int, kernel: int, stride: int, dtype: Any, name: str, kernel_init=he_normal_fan_out
) -> nn.Conv:
    """A bias-free convolution with explicit symmetric padding: Flax's "SAME" is asymmetric at stride 2.

    In training it has the gradient of `convolution`, which has no forward-mode derivative.
    """
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=kernel // 2,
        use_bias=False,
        dtype=dtype,
        precision=exact_precision(dtype),
        kernel_init=kernel_init,
        conv_general_dilated=convolution if train else None,
        name=name,
    )


def batch_norm(train: bool, dtype: Any, name: str) -> "BatchNorm":
    """Batch normalisation with float32 statistics, over the global batch when jitted on sharded arrays."""
    return BatchNorm(train, dtype, name=name)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last: [..., c] -> [..., c]. Running averages have momentum 0.9.

    Flax's own has either a variance that loses its digits if the mean is large, or one that costs more passes over
    the array and more exchanges between devices, in the gradient too; see `mean_and_variance`.

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
        if self.train:
            mean, var = mean_and_variance(x, running_mean.value)
            if not self.is_initializing():
                running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
                running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        factor = jax.lax.rsqrt(var + EPSILON) * scale
        mean, factor, bias = (jnp.expand_dims(a, range(x.ndim - 1)) for a in (mean, factor, bias))
        return ((x.astype(mean.dtype) - mean) * factor + bias).astype(self.dtype)


def mean_and_variance(x: jax.Array, near: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance over all axes but the last.

    Both are sums of x − c and (x − c)² with a constant c: about 0, E[x²] − E[x]² would lose its digits if the mean
    is large, as in a run that collapses. In float32 c is the mean itself, at the cost of another pass over x. In
    bfloat16 it is `near`, and the sums go into the convolution that makes x. Even a distant c does no harm there:
    with 8 bits, rounding of x itself changes the variance by more than rounding of the sums.

    Args:
      x: [..., c].
      near: [c], such as a running mean.

    Returns:
      [c] and [c], float32.
    """
    axes = tuple(range(x.ndim - 1))
    narrow = jnp.finfo(x.dtype).bits < 32
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    c = jax.lax.stop_gradient(near if narrow else x.mean(axes))
    x = x - jnp.expand_dims(c, axes)
    offset = x.mean(axes)
    return c + offset, jnp.maximum(jnp.square(x).mean(axes) - jnp.square(offset), 0.0)


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
