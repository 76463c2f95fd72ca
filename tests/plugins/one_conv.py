"""A trunk of one convolution, for runs whose network does not matter: its programs compile in a moment."""

import flax.linen as nn

from hamjepa_jax.parts import trunks


class OneConv(nn.Module):
    """Images [b, h, w, 3] -> feature map [b, h/2, w/2, 4]."""

    dtype: object

    @nn.compact
    def __call__(self, x, train):
        return nn.Conv(4, (2, 2), strides=(2, 2), dtype=self.dtype)(x)


@trunks.register("one_conv")
def one_conv(s, *, dtype, whole):
    return OneConv(dtype)
