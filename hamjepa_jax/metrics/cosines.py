"""Cosines of random pairs of test features, not centred: mean_cosine, std_cosine, p10_cosine, … max_cosine."""

from hamjepa_jax.metrics.contract import METHODS_TABLE, STATISTICS, Column, Features
from hamjepa_jax.parts import metrics


@metrics.register(
    "cosines",
    keys=[f"{statistic}_cosine" for statistic in STATISTICS],
    place=5,
    columns=[Column("mean cosine", "mean_cosine", digits=3, tables=(METHODS_TABLE,), always=True)],
)
def cosines(x: Features) -> dict[str, float]:
    """Mean, deviation and percentiles, see `evaluation.random_pair_cosines`."""
    from hamjepa_jax.evaluation.geometry import random_pair_cosines, summary_statistics

    values = random_pair_cosines(x.sample, num_pairs=x.protocol.num_pairs, seed=x.seed)
    return {f"{statistic}_cosine": value for statistic, value in summary_statistics(values).items()}
