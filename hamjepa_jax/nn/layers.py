"""Convolution, batch normalisation and initialisers shared by the networks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# The trunk's convolutions, but for the CIFAR stem's: He-normal with fan-out (He et al., 2015).
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# uniform(−1/√fan_in, 1/√fan_in): a uniform of half-width w has variance w²/3.
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


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


def batch_norm(train: bool, dtype: Any, name: str) -> nn.BatchNorm:
    """Batch normalisation with float32 statistics, over the global batch when jitted on sharded arrays.

    The variance is the mean of (x − mean x)²: E[x²] − E[x]² loses its digits if the mean is large, as in a run that
    collapses.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        use_fast_variance=False,
        name=name,
    )


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
