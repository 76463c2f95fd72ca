"""Trunks: images [b, h, w, 3] to feature maps [b, h', w', c], one file each."""

from hamjepa_jax.nn.trunks.resnet18 import ResNet18

__all__ = ["ResNet18"]
