"""The config that every run's file starts from: all fields with their defaults.

`hamjepa_jax/config/fields.py` states the fields of a run, and the file of each part the fields of that part.
`python -m hamjepa_jax.config` lists all of them with their meanings. The config is locked: a mistyped field is
refused.
"""

from hamjepa_jax.config import get_config

__all__ = ["get_config"]
