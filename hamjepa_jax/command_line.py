"""Temporary: what `hamjepa_jax.cli` and `hamjepa_jax.files` offer, under its old names."""

from hamjepa_jax.cli.parser import Parser, list_of
from hamjepa_jax.cli.parser import run_command as run
from hamjepa_jax.cli.terminal import log_to_terminal, show_messages
from hamjepa_jax.files import write_json

__all__ = ["Parser", "list_of", "log_to_terminal", "run", "show_messages", "write_json"]
