"""For config files of your own that were written on `configs.common`; new ones begin with `default_config()`."""

from hamjepa_jax.config import default_config as get_config

__all__ = ["get_config"]
