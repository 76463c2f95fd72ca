"""Trunks: images [b, h, w, 3] to feature maps [b, h', w', c], one file each."""

from hamjepa_jax.nn.trunks.resnet18 import ResNet18
from hamjepa_jax.parts import register_all

__all__ = ["ResNet18"]

register_all(__name__, __path__)
