"""The ResNet-18 trunk (He et al., 2016), computed no further than asked."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hamjepa_jax import parts
from hamjepa_jax.nn.layers import batch_norm, conv, he_normal_fan_out, uniform_fan_in
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array

BLOCKS_PER_LAYER = 2
STEMS = ("cifar", "imagenet")
STEM_INITS = {"uniform": uniform_fan_in, "he_normal": he_normal_fan_out}
LAST_LAYER = 4

SETTINGS = settings(
    stem=field(
        "cifar", 'First layers: "cifar" (3×3, stride 1) or "imagenet" (7×7, stride 2, max-pooling).', choices=STEMS
    ),
    stem_init=field(
        None,
        'Initial values of its convolution: "uniform" in ±1/√fan_in, or "he_normal" by fan-out, as in the rest of '
        'the trunk. None, as published: "uniform" for the cifar stem, "he_normal" for the imagenet stem.',
        kind=str,
        choices=tuple(STEM_INITS),
    ),
    width=field(64, "Channels of the first layer; 64 is the ResNet-18.", least=1, most=2**11),
    token_layer=field(3, "Layer whose map gives the tokens; later layers are not computed.", choices=(2, 3, 4)),
)


@parts.trunks.register("resnet18", SETTINGS, block="encoder")
def resnet18(s: Values, *, dtype: Any, whole: bool) -> nn.Module:
    """The trunk of these settings.

    Args:
      s: values of SETTINGS.
      dtype: computation type.
      whole: whether the map of the last layer is asked for, as global pooling needs it, instead of token_layer's.

    Returns:
      module(images [b, h, w, 3], train) -> feature map [b, h', w', c].
    """
    return ResNet18(s.stem, LAST_LAYER if whole else s.token_layer, s.width, dtype, s.stem_init)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a residual connection: [b, h, w, c] -> [b, h/stride, w/stride, features]."""

    features: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = conv(self.features, 3, self.stride, self.dtype, "conv1")(x)
        y = nn.relu(batch_norm(train, self.dtype, "bn1")(y))
        y = conv(self.features, 3, 1, self.dtype, "conv2")(y)
        y = batch_norm(train, self.dtype, "bn2")(y)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = conv(self.features, 1, self.stride, self.dtype, "downsample_conv")(x)
            x = batch_norm(train, self.dtype, "downsample_bn")(x)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """Images [b, h, w, 3] -> the feature map of `last_layer` [b, h', w', width·2^(last_layer − 1)].

    Attributes:
      stem: "cifar" (3×3, stride 1) or "imagenet" (7×7, stride 2, then 3×3 max-pooling of stride 2).
      last_layer: 1 … 4; later layers are neither created nor computed.
      width: channels of the first layer, 64 in the ResNet-18.
      dtype: computation type; parameters and batch statistics are float32.
      stem_init: of the stem's convolution: "uniform" (±1/√fan_in, std 0.111 in a 3×3 stem) or "he_normal" (fan-out,
        std 0.059 at width 64); None is "uniform" for "cifar" and "he_normal" for "imagenet".
    """

    stem: str
    last_layer: int
    width: int = 64
    dtype: Any = jnp.float32
    stem_init: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = x.astype(self.dtype)
        kernel, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        init = STEM_INITS[self.stem_init or ("uniform" if self.stem == "cifar" else "he_normal")]
        x = conv(self.width, kernel, stride, self.dtype, "stem_conv", kernel_init=init)(x)
        x = nn.relu(batch_norm(train, self.dtype, "stem_bn")(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for layer in range(1, self.last_layer + 1):
            for block in range(BLOCKS_PER_LAYER):
                stride = 2 if layer > 1 and block == 0 else 1
                features = self.width * 2 ** (layer - 1)
                x = BasicBlock(features, stride, self.dtype, name=f"layer{layer}_{block}")(x, train)
        return x
