"""Statistics over seeds and evaluations: mean ± standard deviation, paired t-test, rank correlation."""

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n − 1) of one or more runs; NaN for the deviation of a single one.

    Raises:
      ValueError: if there are no values.
    """
    values = np.asarray(values, float)
    if values.size == 0:
        raise ValueError("mean_std needs at least one value.")
    return float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else math.nan


def paired_t_test(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Two-sided paired t-test of the hypothesis that a and b have the same mean; a[i] and b[i] share seed i.

    Args:
      a: [n] results of one method, n ≥ 2 seeds.
      b: [n] results of the other, in the same order of seeds.

    Returns:
      {"difference": mean of a − b, "low", "high": its 95% confidence interval, "t", "p", "dof": n − 1}. If all
      differences are equal the statistic is infinite and p is 0, or, where they are all 0, t is 0 and p is 1.

    Raises:
      ValueError: if the lengths differ or there are fewer than two seeds.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"a paired test needs the same seeds twice, at least two, got {len(a)} and {len(b)}.")
    a, b = np.asarray(a, float), np.asarray(b, float)
    mean, std = mean_std(a - b)
    found = {"difference": mean, "low": mean, "high": mean}
    if std <= 1e-12 * max(np.abs(a).max(), np.abs(b).max()):  # But for rounding, SciPy would divide by 0.
        t = 0.0 if mean == 0.0 else math.copysign(math.inf, mean)
        return found | {"t": t, "p": 1.0 if mean == 0.0 else 0.0, "dof": a.size - 1}
    from scipy import stats  # Takes a second to import.

    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(CONFIDENCE)
    return found | {
        "low": float(interval.low),
        "high": float(interval.high),
        "t": float(test.statistic),
        "p": float(test.pvalue),
        "dof": a.size - 1,
    }


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation of two sequences of equal length; NaN below three points or for a constant."""
    if len(a) != len(b):
        raise ValueError(f"spearman compares sequences of equal length, got {len(a)} and {len(b)}.")
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    from scipy import stats  # Takes a second to import.

    return float(stats.spearmanr(a, b).statistic)
