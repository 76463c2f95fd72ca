"""The ResNet-50 trunk."""

from typing import Any

from hamjepa_jax import parts
from hamjepa_jax.nn.trunks.resnet import SETTINGS, TORCH, ResNet50, resnet, stage
from hamjepa_jax.parts import Values


@parts.trunks.register("resnet50", SETTINGS, block="encoder", torch=TORCH, stage=stage)
def resnet50(s: Values, *, dtype: Any, whole: bool) -> ResNet50:
    """The trunk of these settings, see `resnet`."""
    return resnet(ResNet50, s, dtype=dtype, whole=whole)
