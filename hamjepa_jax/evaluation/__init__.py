"""Evaluation of frozen features: kNN, linear probe, geometry, and the protocol that names every number."""

from hamjepa_jax.evaluation.factors import factor_scores
from hamjepa_jax.evaluation.features import area_downsample, extract, readouts
from hamjepa_jax.evaluation.flow import flow_metrics
from hamjepa_jax.evaluation.geometry import (
    alignment,
    covariance_spectrum,
    effective_rank,
    norms,
    participation_ratio,
    random_pair_cosines,
    summary_statistics,
    uniformity,
)
from hamjepa_jax.evaluation.knn import knn_accuracy
from hamjepa_jax.evaluation.neighbours import first_of_each_class, nearest
from hamjepa_jax.evaluation.probe import linear_probe
from hamjepa_jax.evaluation.protocol import accuracy_keys, evaluate_features, feature_summary, few_shot_rows

__all__ = [
    "accuracy_keys",
    "alignment",
    "area_downsample",
    "covariance_spectrum",
    "effective_rank",
    "evaluate_features",
    "extract",
    "factor_scores",
    "feature_summary",
    "few_shot_rows",
    "first_of_each_class",
    "flow_metrics",
    "knn_accuracy",
    "linear_probe",
    "nearest",
    "norms",
    "participation_ratio",
    "random_pair_cosines",
    "readouts",
    "summary_statistics",
    "uniformity",
]
