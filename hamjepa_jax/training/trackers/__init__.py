"""Trackers: places besides metrics.jsonl that a run's numbers are written to, chosen by name in log.trackers."""

from hamjepa_jax.training.trackers.contract import NAMES, Results, Tracker
from hamjepa_jax.training.trackers.kept import TRACKERS_FILE, Record, Tracked, check_installed, open_trackers

__all__ = ["NAMES", "TRACKERS_FILE", "Record", "Results", "Tracked", "Tracker", "check_installed", "open_trackers"]
