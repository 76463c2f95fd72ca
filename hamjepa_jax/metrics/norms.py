"""Euclidean norms of the test features: mean_norm, std_norm, p10_norm, … max_norm."""

from hamjepa_jax.metrics.contract import METHODS_TABLE, STATISTICS, Column, Features
from hamjepa_jax.parts import metrics


@metrics.register(
    "norms",
    keys=[f"{statistic}_norm" for statistic in STATISTICS],
    place=6,
    columns=[Column("mean norm", "mean_norm", digits=1, tables=(METHODS_TABLE,), always=True)],
)
def norms(x: Features) -> dict[str, float]:
    """Mean, deviation and percentiles, see `evaluation.norms`."""
    from hamjepa_jax.evaluation import geometry

    values = geometry.norms(x.sample)
    return {f"{statistic}_norm": value for statistic, value in geometry.summary_statistics(values).items()}
