"""The settings of a run: their statements, the default config, the grammar of overrides, and what is refused."""

from hamjepa_jax.config.checks import (
    check_devices,
    check_durations,
    check_frames,
    check_images,
    check_labels_read,
    check_settings,
    reads_labels,
    warnings,
)
from hamjepa_jax.config.default import complete, default_config, fields_of, from_saved
from hamjepa_jax.config.describe import describe, differences
from hamjepa_jax.config.durations import duration_steps, epoch_at, total_steps
from hamjepa_jax.config.files import change, configure, read_config, shipped
from hamjepa_jax.config.free import FREE_FIELDS, differing_fields, flat_fields
from hamjepa_jax.config.grammar import assign, parse_arg, set_field

__all__ = [
    "FREE_FIELDS",
    "assign",
    "change",
    "check_devices",
    "check_durations",
    "check_frames",
    "check_images",
    "check_labels_read",
    "check_settings",
    "complete",
    "configure",
    "default_config",
    "describe",
    "differences",
    "differing_fields",
    "duration_steps",
    "epoch_at",
    "fields_of",
    "flat_fields",
    "from_saved",
    "parse_arg",
    "read_config",
    "reads_labels",
    "set_field",
    "shipped",
    "total_steps",
    "warnings",
]
