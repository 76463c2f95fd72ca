"""The ResNet-34 trunk."""

from typing import Any

from hamjepa_jax import parts
from hamjepa_jax.nn.trunks.resnet import SETTINGS, TORCH, ResNet34, resnet, stage
from hamjepa_jax.parts import Values


@parts.trunks.register("resnet34", SETTINGS, block="encoder", torch=TORCH, stage=stage)
def resnet34(s: Values, *, dtype: Any, whole: bool) -> ResNet34:
    """The trunk of these settings, see `resnet`."""
    return resnet(ResNet34, s, dtype=dtype, whole=whole)
