"""Metrics of frozen features, a file each. Nothing here imports jax before a metric is measured.

To add a metric, add a file that registers it, here or as a plugin; `metrics.contract` says how.
"""

from hamjepa_jax.metrics.contract import (
    FLOW_TABLE,
    KS,
    LEARNING_CURVE,
    MAX_SAMPLES,
    METHODS_TABLE,
    NUM_PAIRS,
    PROBE,
    RUN_TABLE,
    TOP_EIGENVALUES,
    TRAINING_DYNAMICS,
    Column,
    Features,
    FlowStates,
    Panel,
    Protocol,
    Shown,
)
from hamjepa_jax.metrics.registered import columns, expected_keys, listed, measure, panels, scores
from hamjepa_jax.parts import register_all

__all__ = [
    "FLOW_TABLE",
    "KS",
    "LEARNING_CURVE",
    "MAX_SAMPLES",
    "METHODS_TABLE",
    "NUM_PAIRS",
    "PROBE",
    "RUN_TABLE",
    "TOP_EIGENVALUES",
    "TRAINING_DYNAMICS",
    "Column",
    "Features",
    "FlowStates",
    "Panel",
    "Protocol",
    "Shown",
    "columns",
    "expected_keys",
    "listed",
    "measure",
    "panels",
    "scores",
]

register_all(__name__, __path__)
