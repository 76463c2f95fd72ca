"""The ResNet-18 trunk."""

from typing import Any

from hamjepa_jax import parts
from hamjepa_jax.nn.trunks.resnet import SETTINGS, TORCH, ResNet18, resnet, stage
from hamjepa_jax.parts import Values


@parts.trunks.register("resnet18", SETTINGS, block="encoder", torch=TORCH, stage=stage)
def resnet18(s: Values, *, dtype: Any, whole: bool) -> ResNet18:
    """The trunk of these settings, see `resnet`."""
    return resnet(ResNet18, s, dtype=dtype, whole=whole)
