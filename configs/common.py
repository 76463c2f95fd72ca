"""The config that every run's file starts from: all fields with their defaults.

The fields are stated in hamjepa_jax: those of a run in `hamjepa_jax/config/fields.py`, those of a part in its file.
`python -m hamjepa_jax.config` lists all of them with their meanings. The config is locked: a mistyped field is refused.
"""

from hamjepa_jax.config import get_config

__all__ = ["get_config"]
