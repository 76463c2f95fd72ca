"""What a compiled training step costs on a slice of TPU chips: its collectives, and a model of its time."""

from hamjepa_jax.scaling.chips import CHIPS, SLICES, Chip, Slice, parse_slices
from hamjepa_jax.scaling.collectives import KINDS, Collective, find_collectives
from hamjepa_jax.scaling.cost import StepTime, collective_seconds, step_time

__all__ = [
    "CHIPS",
    "KINDS",
    "SLICES",
    "Chip",
    "Collective",
    "Slice",
    "StepTime",
    "collective_seconds",
    "find_collectives",
    "parse_slices",
    "step_time",
]
