"""Trunks: images [b, h, w, 3] to feature maps [b, h', w', c], one file each."""

from hamjepa_jax.nn.trunks.resnet import ResNet18, ResNet34, ResNet50
from hamjepa_jax.nn.trunks.vit import ViT
from hamjepa_jax.parts import register_all

__all__ = ["ResNet18", "ResNet34", "ResNet50", "ViT"]

register_all(__name__, __path__)
