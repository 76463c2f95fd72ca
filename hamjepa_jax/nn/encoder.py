"""Encoders: images to phase-space states z = [q; p] from a trunk's token grid, or to global embeddings."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hamjepa_jax.nn.layers import EPSILON, Linear, batch_norm, conv, exact_precision, uniform_fan_in

Array = jax.Array


class TokenEncoder(nn.Module):
    """Images [b, h, w, 3] -> float32 states [b, K], K = h'·w'·token_dim, from the tokens of a trunk's feature map.

    Tokens are in row-major order. With `split_qp` the first half of each token's channels belongs to q, the other
    half to p, both flattened over (h', w', token_dim/2), and z = [q; p] with q, p of size d = K/2.

    With `keep` [n], indices of tokens, of trunks that can leave the others out, the state is of these n tokens.

    Attributes:
      trunk: module(images, train) -> feature map [b, h, w, c]; its parameters are those of "trunk".
      token_hw: side of the token grid after adaptive average pooling; None keeps the trunk's own grid.
      token_dim: channels of a token after the 1×1 projection (d_f).
      split_qp: whether z is laid out as [q; p].
      dtype: computation type of the token layer; the trunk has its own, and the state is float32.
      token_norm: after the projection: "batch" normalisation, or "layer" normalisation of each token.
    """

    trunk: nn.Module
    token_hw: int | None
    token_dim: int
    split_qp: bool
    dtype: Any = jnp.float32
    token_norm: str = "batch"

    @nn.compact
    def __call__(self, images: Array, train: bool, keep: Array | None = None) -> Array:
        x = _feature_map(self.trunk(images, train) if keep is None else self.trunk(images, train, keep))
        if self.token_hw is not None:
            x = adaptive_average_pool(x, self.token_hw)
        x = conv(train, self.token_dim, 1, 1, self.dtype, "token_conv", kernel_init=uniform_fan_in)(x)
        if self.token_norm == "layer":
            tokens = nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, dtype=self.dtype, name="token_ln")(x)
        else:
            tokens = batch_norm(train, self.dtype, "token_bn")(x)
        return flatten_tokens(tokens.astype(jnp.float32), self.split_qp)


class GlobalEncoder(nn.Module):
    """Images [b, h, w, 3] -> float32 embeddings [b, embed_dim]: a trunk, global average pooling, a linear layer.

    Attributes:
      trunk: module(images, train) -> feature map [b, h, w, c]; its parameters are those of "trunk".
      embed_dim: size of an embedding.
    """

    trunk: nn.Module
    embed_dim: int

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        x = _feature_map(self.trunk(images, train))
        return Linear(self.embed_dim, name="fc")(x.astype(jnp.float32).mean(axis=(1, 2)))


def _feature_map(x: Array) -> Array:
    if x.ndim != 4:
        raise ValueError(f"a trunk gives feature maps [b, h, w, c], got shape {x.shape}.")
    return x


def flatten_tokens(tokens: Array, split_qp: bool) -> Array:
    """Tokens [b, h, w, c] -> states [b, h·w·c], laid out as [q; p] when `split_qp`.

    Raises:
      ValueError: if the channels of a token cannot be halved.
    """
    b, channels = tokens.shape[0], tokens.shape[-1]
    if not split_qp:
        return tokens.reshape(b, -1)
    if channels % 2:
        raise ValueError(f"split_qp halves the channels of a token, got {channels} of them in {tokens.shape}.")
    q, p = jnp.split(tokens, 2, axis=-1)
    return jnp.concatenate([q.reshape(b, -1), p.reshape(b, -1)], axis=-1)


def adaptive_average_pool(x: Array, size: int) -> Array:
    """Average pooling to a size × size grid: bin i covers rows ⌊i·H/size⌋ … ⌈(i+1)·H/size⌉ − 1, likewise columns.

    [b, h, w, c] -> [b, size, size, c]; bins overlap where size does not divide H.
    """
    rows, columns = (_bins(n, size) for n in x.shape[1:3])
    sums = jnp.einsum(
        "ih,jw,bhwc->bijc",
        jnp.asarray(rows, x.dtype),
        jnp.asarray(columns, x.dtype),
        x,
        precision=exact_precision(x.dtype),
        preferred_element_type=jnp.promote_types(x.dtype, jnp.float32),
    )
    # Ones and zeros are exact in bfloat16; thirds would make wide bins brighter than narrow ones.
    counts = np.outer(rows.sum(axis=1), columns.sum(axis=1))
    return (sums / counts[None, :, :, None]).astype(x.dtype)


def _bins(length: int, bins: int) -> np.ndarray:
    """Which of `length` positions belong to each bin, [bins, length] ones and zeros."""
    member = np.zeros((bins, length), np.float32)
    for i in range(bins):
        member[i, i * length // bins : math.ceil((i + 1) * length / bins)] = 1
    return member
