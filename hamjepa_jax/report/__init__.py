"""Tables and figures from the numbers that runs write; nothing here imports jax."""

from hamjepa_jax.metrics.keys import knn_sweep
from hamjepa_jax.report.comparison import compare_methods
from hamjepa_jax.report.factors import factors_figure, factors_text
from hamjepa_jax.report.finished import (
    FREE_FIELDS,
    SESSIONS_FILE,
    TOLD_BY_NO_KEY,
    FinishedRun,
    alike,
    differing,
    evaluated_on,
    is_free,
    measured,
    read_run,
    read_sessions,
    readouts_of,
    refuse_other_data,
    settings_of,
)
from hamjepa_jax.report.headline import describe_protocol, headline_accuracies, headline_keys, headline_title
from hamjepa_jax.report.label_free import (
    agreements,
    checkpoints_of,
    label_free_blocks,
    label_free_text,
)
from hamjepa_jax.report.logs import read_history, read_metrics, read_results, select, series, steps_per_epoch
from hamjepa_jax.report.method_plots import grid_figure
from hamjepa_jax.report.methods import METHOD_NAMES
from hamjepa_jax.report.neighbours import Neighbour, Neighbours, neighbours_figure
from hamjepa_jax.report.page import Figure, Heading, Listing, Table, Text, write_page
from hamjepa_jax.report.pictures import Pair, map_figure, pairs_figure, tokens_figure, trajectories_figure
from hamjepa_jax.report.plots import decomposition, learning_curve, summary_panels, training_dynamics
from hamjepa_jax.report.portraits import Orbits, Rollout, portrait_figure, rollout_animation
from hamjepa_jax.report.provenance import config_listing, run_blocks, run_records
from hamjepa_jax.report.published import PUBLISHED
from hamjepa_jax.report.significance import mean_std, paired_t_test
from hamjepa_jax.report.tables import (
    READOUT_NAMES,
    cell,
    comparison_table,
    markdown_table,
    mean_text,
    metric_columns,
    over_seeds,
    rows_of,
)
from hamjepa_jax.report.trajectories import rollouts_figure, trajectories_blocks, trajectories_text

__all__ = [
    "FREE_FIELDS",
    "METHOD_NAMES",
    "PUBLISHED",
    "READOUT_NAMES",
    "SESSIONS_FILE",
    "TOLD_BY_NO_KEY",
    "Figure",
    "FinishedRun",
    "Heading",
    "Listing",
    "Neighbour",
    "Neighbours",
    "Orbits",
    "Pair",
    "Rollout",
    "Table",
    "Text",
    "agreements",
    "alike",
    "cell",
    "checkpoints_of",
    "compare_methods",
    "comparison_table",
    "config_listing",
    "decomposition",
    "describe_protocol",
    "differing",
    "evaluated_on",
    "factors_figure",
    "factors_text",
    "grid_figure",
    "headline_accuracies",
    "headline_keys",
    "headline_title",
    "is_free",
    "knn_sweep",
    "label_free_blocks",
    "label_free_text",
    "learning_curve",
    "map_figure",
    "markdown_table",
    "mean_std",
    "mean_text",
    "measured",
    "metric_columns",
    "neighbours_figure",
    "over_seeds",
    "paired_t_test",
    "pairs_figure",
    "portrait_figure",
    "read_history",
    "read_metrics",
    "read_results",
    "read_run",
    "read_sessions",
    "readouts_of",
    "refuse_other_data",
    "rollout_animation",
    "rollouts_figure",
    "rows_of",
    "run_blocks",
    "run_records",
    "select",
    "series",
    "settings_of",
    "steps_per_epoch",
    "summary_panels",
    "tokens_figure",
    "training_dynamics",
    "trajectories_blocks",
    "trajectories_figure",
    "trajectories_text",
    "write_page",
]
