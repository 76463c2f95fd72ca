"""Tables and figures from the numbers that runs write; nothing here imports jax."""

from hamjepa_jax.report.plots import learning_curve, summary_panels, training_dynamics
from hamjepa_jax.report.read import read_history, read_metrics, select, series
from hamjepa_jax.report.significance import mean_std, paired_t_test
from hamjepa_jax.report.tables import comparison_table, markdown_table

__all__ = [
    "comparison_table",
    "learning_curve",
    "markdown_table",
    "mean_std",
    "paired_t_test",
    "read_history",
    "read_metrics",
    "select",
    "series",
    "summary_panels",
    "training_dynamics",
]
