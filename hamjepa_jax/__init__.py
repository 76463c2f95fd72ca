"""HamJEPA in JAX: phase-space joint-embedding predictive learning, its baselines, theory and figures."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hamjepa_jax.interop.pretrained import PretrainedEncoder

__version__ = "0.1.0"


def load(path, *, step: int | None = None) -> "PretrainedEncoder":
    """The trained encoder of a workdir, an exported folder or "hf://owner/name", see `interop.pretrained.load`."""
    from hamjepa_jax.interop.pretrained import load  # Imported late: the package itself imports at once.

    return load(path, step=step)
