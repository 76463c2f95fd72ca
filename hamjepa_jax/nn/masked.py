"""Tokens at some places of an image predicted from tokens at others: a narrow transformer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.initializers import normal, truncated_normal

from hamjepa_jax.nn.trunks.vit import Block, dense, layer_norm

Array = jax.Array


class TokenPredictor(nn.Module):
    """Tokens [b, n, c] at places [n], and other places [m] -> tokens [b, m, c] there; all float32.

    Each wanted place is a learned mask token with the place's position embedding, which is learned too.

    Attributes:
      places: of an image.
      dim, depth, heads: channels, blocks and heads of the attention inside.
    """

    places: int
    dim: int
    depth: int
    heads: int

    @nn.compact
    def __call__(self, tokens: Array, at: Array, wanted: Array) -> Array:
        b, n, channels = tokens.shape
        positions = self.param("pos_embed", truncated_normal(0.02), (self.places, self.dim))
        mask = self.param("mask_token", normal(0.02), (1, self.dim))
        known = dense(self.dim, jnp.float32, "embed")(tokens) + positions[at][None]
        unknown = jnp.broadcast_to((mask + positions[wanted])[None], (b, wanted.shape[0], self.dim))
        x = jnp.concatenate([known, unknown], axis=1)
        for i in range(self.depth):
            x = Block(self.heads, jnp.float32, name=f"blocks_{i}")(x)
        x = layer_norm(jnp.float32, "norm")(x[:, n:])
        return dense(channels, jnp.float32, "output")(x)


class TokenNetwork(NamedTuple):
    """A `TokenPredictor` as pure functions.

    Attributes:
      init: (key, channels of a token) -> params.
      apply: (params, tokens [b, n, c], places [n], wanted places [m]) -> tokens [b, m, c].
    """

    init: Callable[[Array, int], Any]
    apply: Callable[[Any, Array, Array, Array], Array]


def token_network(*, places: int, dim: int, depth: int, heads: int, name: str) -> TokenNetwork:
    """A network of the form of a `TokenPredictor`; `name` is for messages."""
    module, one = TokenPredictor(places, dim, depth, heads, name=name), jnp.zeros(1, jnp.int32)

    def init(key: Array, channels: int) -> Any:
        return module.init(key, jnp.zeros((1, 1, channels)), one, one)["params"]

    return TokenNetwork(init, lambda params, *arguments: module.apply({"params": params}, *arguments))
