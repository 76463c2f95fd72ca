"""The collapses that a single penalty allows, and the guarantee of two of them (paper, section 4.2)."""

import numpy as np
from numpy.typing import ArrayLike

from hamjepa_jax.theory.matrices import covariance

PENALTIES = ("scale budget", "log-det floor", "participation-ratio floor")


def penalties(sigma: ArrayLike, *, target: float, logdet_floor: float, pr_floor: float) -> dict[str, float]:
    """The three penalties of a centred cloud with covariance Σ, in closed form.

    Args:
      sigma: [d, d] covariance.
      target: mean square per coordinate that the budget asks for.
      logdet_floor: floor on logdet(Σ)/d, in nats.
      pr_floor: floor on PR/d with PR = tr(Σ)²/tr(Σ²), in (0, 1].

    Returns:
      {"scale budget": (tr Σ/d − target)², "log-det floor": max(0, floor − logdet Σ/d)²,
      "participation-ratio floor": max(0, floor − PR/d)²}; a singular Σ has an infinite log-det penalty.

    Raises:
      ValueError: if sigma is no covariance.
    """
    sigma = covariance("the covariance sigma", sigma)
    eigenvalues = np.maximum(np.linalg.eigvalsh(sigma), 0.0)
    d, trace = len(sigma), eigenvalues.sum()
    with np.errstate(divide="ignore"):
        logdet = np.log(eigenvalues).mean()
    ratio = trace**2 / np.square(eigenvalues).sum() / d
    values = (trace / d - target) ** 2, max(0.0, logdet_floor - logdet) ** 2, max(0.0, pr_floor - ratio) ** 2
    return dict(zip(PENALTIES, map(float, values), strict=True))


def collapse_examples(d: int, *, target: float, logdet_floor: float, tiny: float) -> dict[str, np.ndarray]:
    """For each single penalty a covariance that it accepts and that has collapsed.

    Args:
      d: dimension, at least 2.
      target: mean square per coordinate that the budget asks for.
      logdet_floor: floor on logdet(Σ)/d, in nats.
      tiny: variance that is left to collapsed directions, positive and well under 1.

    Returns:
      By penalty: under "scale budget" one direction holds the whole variance d·target but for `tiny` in each other;
      under "log-det floor" d − 1 directions have variance `tiny` and the last one pays for them, so that
      logdet(Σ)/d is at the floor; under "participation-ratio floor" Σ = tiny·I, perfectly spread and of no size.

    Raises:
      ValueError: if d < 2 or `tiny` is not in (0, 1).
    """
    if d < 2:
        raise ValueError(f"a collapse of some directions needs at least two, got d = {d}.")
    if not 0 < tiny < 1:
        raise ValueError(f"the collapsed variance must lie in (0, 1), got {tiny}.")
    others = np.full(d - 1, tiny)
    by_penalty = (
        np.diag([d * target - others.sum(), *others]),
        np.diag([np.exp(d * logdet_floor - (d - 1) * np.log(tiny)), *others]),
        tiny * np.eye(d),
    )
    return dict(zip(PENALTIES, by_penalty, strict=True))


def smallest_eigenvalue_bound(k: int, *, logdet_floor: float, trace_ceiling: float) -> float:
    """The best lower bound on λ_min of [k, k] covariances with logdet ≥ k·τ and tr ≤ m.

    With λ = λ_min the other eigenvalues have product at least e^{kτ}/λ and sum at most m − λ, so by their means
    λ·((m − λ)/(k − 1))^{k−1} ≥ e^{kτ}. The left side grows on (0, m/k]; its root there is the bound, attained when
    the others are equal. A cruder closed form is e^{kτ}·((k − 1)/m)^{k−1}.

    Args:
      k: size of the covariance.
      logdet_floor: τ, in nats per dimension.
      trace_ceiling: m, in squared units of the features.

    Returns:
      The bound, positive.

    Raises:
      ValueError: if k < 1, m is not positive, or no covariance meets both (τ > log(m/k)).
    """
    if k < 1 or not trace_ceiling > 0:
        raise ValueError(f"expected k >= 1 and a positive trace ceiling, got k = {k} and {trace_ceiling}.")
    if logdet_floor > np.log(trace_ceiling / k) + 1e-12:
        raise ValueError(
            f"no [{k}, {k}] covariance has logdet/k >= {logdet_floor} and trace <= {trace_ceiling}: its logdet/k "
            f"is at most log(trace/k) = {np.log(trace_ceiling / k):.4g}."
        )
    if k == 1:
        return float(np.exp(logdet_floor))

    def slack(log_value):
        rest = (trace_ceiling - np.exp(log_value)) / (k - 1)
        return log_value + (k - 1) * np.log(rest) - k * logdet_floor

    high = np.log(trace_ceiling / k)
    low = k * logdet_floor - (k - 1) * np.log(trace_ceiling / (k - 1))  # the cruder bound
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slack(middle) < 0 else (low, middle)
    return float(np.exp(high))
