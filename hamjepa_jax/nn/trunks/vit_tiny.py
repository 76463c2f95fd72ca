"""The ViT-Ti trunk."""

from typing import Any

from hamjepa_jax import parts
from hamjepa_jax.nn.trunks.vit import ABOUT, SETTINGS, ViT, vit
from hamjepa_jax.parts import Values


@parts.trunks.register("vit_tiny", SETTINGS, block="encoder.vit", **ABOUT)
def vit_tiny(s: Values, *, dtype: Any, whole: bool) -> ViT:
    """The trunk of these settings, see `vit`."""
    return vit("vit_tiny", s, dtype=dtype, whole=whole)
