"""A transformer trunk of one block, with layer normalisation and so without batch statistics."""

import flax.linen as nn

from hamjepa_jax.parts import field, settings, trunks

SETTINGS = settings(
    width=field(8, "Channels of a token.", least=2), patch=field(2, "Side of a patch, in pixels.", least=1)
)


class Toy(nn.Module):
    """Images [b, h, w, 3] -> tokens [b, h/patch, w/patch, width]."""

    width: int
    patch: int
    dtype: object

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.width, (self.patch,) * 2, strides=(self.patch,) * 2, dtype=self.dtype)(x)
        tokens = x.reshape(x.shape[0], -1, self.width)
        tokens += nn.SelfAttention(num_heads=2, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(tokens))
        hidden = nn.gelu(nn.Dense(2 * self.width, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(tokens)))
        return (tokens + nn.Dense(self.width, dtype=self.dtype)(hidden)).reshape(x.shape)


@trunks.register("toy_transformer", SETTINGS)
def toy_transformer(s, *, dtype, whole):
    return Toy(s.width, s.patch, dtype)
