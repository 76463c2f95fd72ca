"""Residual networks (He et al., 2016), computed no further than asked; each depth is registered in its own file."""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hamjepa_jax.errors import UserError
from hamjepa_jax.nn.layers import batch_norm, conv, he_normal_fan_out, uniform_fan_in
from hamjepa_jax.nn.torch_names import Shapes, TorchNames
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array

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
    width=field(64, "Channels of the first layer; 64 is the ResNet of the paper.", least=1, most=2**11),
    token_layer=field(
        3, "Layer of a ResNet whose map gives the tokens; later layers are not computed.", choices=(1, 2, 3, 4)
    ),
)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a residual connection: [b, h, w, c] -> [b, h/stride, w/stride, features]."""

    features: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = conv(train, self.features, 3, self.stride, self.dtype, "conv1")(x)
        y = nn.relu(batch_norm(train, self.dtype, "bn1")(y))
        y = conv(train, self.features, 3, 1, self.dtype, "conv2")(y)
        y = batch_norm(train, self.dtype, "bn2")(y)
        return nn.relu(shortcut(x, self.features, self.stride, self.dtype, train) + y)


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions with a residual connection: [b, h, w, c] -> [b, h/stride, w/stride, 4·features].

    The 3×3 convolution has the stride, as in torchvision ("v1.5"); in the paper it is the first 1×1.
    """

    features: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = conv(train, self.features, 1, 1, self.dtype, "conv1")(x)
        y = nn.relu(batch_norm(train, self.dtype, "bn1")(y))
        y = conv(train, self.features, 3, self.stride, self.dtype, "conv2")(y)
        y = nn.relu(batch_norm(train, self.dtype, "bn2")(y))
        y = conv(train, 4 * self.features, 1, 1, self.dtype, "conv3")(y)
        y = batch_norm(train, self.dtype, "bn3")(y)
        return nn.relu(shortcut(x, 4 * self.features, self.stride, self.dtype, train) + y)


def shortcut(x: Array, channels: int, stride: int, dtype: Any, train: bool) -> Array:
    """The input of a block as it is added to the output: projected where the shape changes. Call within a block."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    x = conv(train, channels, 1, stride, dtype, "downsample_conv")(x)
    return batch_norm(train, dtype, "downsample_bn")(x)


class ResNet(nn.Module):
    """Images [b, h, w, 3] -> the feature map of `last_layer`; a subclass says which blocks, and how many.

    The map has width·2^(last_layer − 1) channels, four times as many with bottlenecks.

    Attributes:
      stem: "cifar" (3×3, stride 1) or "imagenet" (7×7, stride 2, then 3×3 max-pooling of stride 2).
      last_layer: 1 … 4; later layers are neither created nor computed.
      width: channels of the first layer, 64 in the paper's ResNets.
      dtype: computation type; parameters and batch statistics are float32.
      stem_init: of the stem's convolution: "uniform" (±1/√fan_in, std 0.111 in a 3×3 stem) or "he_normal" (fan-out,
        std 0.059 at width 64); None is "uniform" for "cifar" and "he_normal" for "imagenet".
    """

    stem: str
    last_layer: int
    width: int = 64
    dtype: Any = jnp.float32
    stem_init: str | None = None

    block = BasicBlock
    blocks_per_layer = (2, 2, 2, 2)

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = x.astype(self.dtype)
        kernel, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        init = STEM_INITS[self.stem_init or ("uniform" if self.stem == "cifar" else "he_normal")]
        x = conv(train, self.width, kernel, stride, self.dtype, "stem_conv", kernel_init=init)(x)
        x = nn.relu(batch_norm(train, self.dtype, "stem_bn")(x))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for layer in range(1, self.last_layer + 1):
            features = self.width * 2 ** (layer - 1)
            for i in range(self.blocks_per_layer[layer - 1]):
                stride = 2 if layer > 1 and i == 0 else 1
                x = self.block(features, stride, self.dtype, name=f"layer{layer}_{i}")(x, train)
        return x


class ResNet18(ResNet):
    """Two basic blocks in a layer."""


class ResNet34(ResNet):
    """3, 4, 6 and 3 basic blocks."""

    blocks_per_layer = (3, 4, 6, 3)


class ResNet50(ResNet):
    """3, 4, 6 and 3 bottlenecks."""

    block = Bottleneck
    blocks_per_layer = (3, 4, 6, 3)


NETWORKS = {"resnet18": ResNet18, "resnet34": ResNet34, "resnet50": ResNet50}


def resnet(kind: type[ResNet], s: Values, *, dtype: Any, whole: bool) -> ResNet:
    """The trunk of these settings.

    Args:
      kind: of NETWORKS.
      s: values of SETTINGS.
      dtype: computation type.
      whole: whether the map of the last layer is asked for, as global pooling needs it, instead of token_layer's.

    Returns:
      module(images [b, h, w, 3], train) -> feature map [b, h', w', c].
    """
    return kind(s.stem, LAST_LAYER if whole else s.token_layer, s.width, dtype, s.stem_init)


def stage(module: str) -> int:
    """The number of a module's layer, the stem being 0; see the facts of trunks in `build`."""
    return int(module[5]) if module.startswith("layer") else 0


def read(shapes: Shapes) -> dict[str, Any]:
    """The settings that torchvision's names and shapes show; see `TorchNames`."""
    first = shapes["conv1.weight"]
    stems = {3: "cifar", 7: "imagenet"}
    if len(first) != 4 or first[-1] not in stems:
        raise UserError(f"conv1.weight {first}: expected a first convolution of 3×3 or 7×7.")
    counts = _blocks_per_layer(shapes)
    bottleneck = all(f"layer1.{i}.conv3.weight" in shapes for i in range(counts.get(1, 0)))
    for name, network in NETWORKS.items():
        wanted = dict(enumerate(network.blocks_per_layer, 1))
        last = counts.get(LAST_LAYER, 0) <= wanted.pop(LAST_LAYER)  # Blocks there may have been left out.
        same = all(wanted[layer] == n for layer, n in counts.items() if layer in wanted)
        if (network.block is Bottleneck) == bottleneck and counts and last and same:
            return {"trunk": name, "stem": stems[first[-1]], "width": first[0]}
    found = ", ".join(f"{n} in layer{layer}" for layer, n in sorted(counts.items()))
    raise UserError(
        f"the trunk has {'bottlenecks' if bottleneck else 'basic blocks'} ({found}), so it is none of the ResNets "
        f"that can be read: {', '.join(NETWORKS)}."
    )


def _blocks_per_layer(shapes: Mapping[str, Any]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for match in filter(None, (re.match(r"layer(\d)\.(\d+)\.", name) for name in shapes)):
        layer, block = int(match[1]), int(match[2])
        counts[layer] = max(counts.get(layer, 0), block + 1)
    return counts


TORCH = TorchNames(
    modules={
        "stem_conv": "conv1",
        "stem_bn": "bn1",
        "downsample_conv": "downsample.0",
        "downsample_bn": "downsample.1",
    },
    marks=("conv1.weight", "layer1.0.conv1.weight"),
    weights=r"(conv1|bn1|layer[1-4])\.",
    partial=r"layer[2-4]\.",
    read=read,
)
