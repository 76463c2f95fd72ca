"""From weights to metrics.json, plots and a table: in training, at its end, and for existing workdirs."""

from hamjepa_jax.evaluate.checkpoints import evaluate, like_trained_on
from hamjepa_jax.evaluate.evaluator import Evaluator, Options, for_images, probe_settings
from hamjepa_jax.evaluate.pictures import pictures_of
from hamjepa_jax.evaluate.results import (
    METRICS_FILE,
    SUMMARY_FILE,
    TABLE_FILE,
    measured_step,
    results_in,
    write_results,
)
from hamjepa_jax.evaluate.several import Others, evaluator_of, open_others
from hamjepa_jax.evaluate.trajectories import check_trajectories, measured_trajectories

__all__ = [
    "METRICS_FILE",
    "SUMMARY_FILE",
    "TABLE_FILE",
    "Evaluator",
    "Options",
    "Others",
    "check_trajectories",
    "evaluate",
    "evaluator_of",
    "for_images",
    "like_trained_on",
    "measured_step",
    "measured_trajectories",
    "open_others",
    "pictures_of",
    "probe_settings",
    "results_in",
    "write_results",
]
