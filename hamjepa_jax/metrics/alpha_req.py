"""α-ReQ, the power law of the test features' spectrum: alpha_req_top100. Needs no labels."""

import numpy as np

from hamjepa_jax.metrics.contract import Features, Protocol
from hamjepa_jax.metrics.keys import Key, Leading
from hamjepa_jax.parts import metrics

FIRST, LAST = 11, 100  # Ranks of the eigenvalues that are fitted, counted from 1.
ROUNDING = 1e-12  # Of the largest eigenvalue: what float32 features leave in directions that they do not have.
STEEPEST = float(-np.log2(ROUNDING))  # That of two eigenvalues, the second of which is all but rounding.


def power_law(eigenvalues: np.ndarray) -> float:
    """α of λⱼ ∝ j^−α by least squares of log λⱼ on log j, each j weighed by 1/j (Agrawal et al., "α-ReQ", 2022).

    The fit has the ranks 11 … 100 of those eigenvalues that are above rounding; the first ones, which follow no
    power law, are left out if at least 20 are above. The weights give equal parts of the logarithmic axis equal
    weight, as in the fits of Stringer et al. (2019) and in the authors' programs (reptrix, fastssl). The range is
    ours: programs in use end at rank 100 too, but begin at 4, 6 or 12, each its own. By the paper features with α
    near 1 do best.

    Args:
      eigenvalues: [k] of the covariance, k ≥ 1, descending.

    Returns:
      α; about 40 if there is one direction or none, more than any other spectrum has.

    >>> round(power_law(np.arange(1.0, 101.0) ** -1.5), 6)
    1.5
    """
    above = int(np.sum(eigenvalues[:LAST] > max(0.0, ROUNDING * eigenvalues[0])))
    if above < 2:
        return STEEPEST
    ranks = np.arange(FIRST if above >= 2 * (FIRST - 1) else 1, above + 1)
    x, y = np.log(ranks), np.log(eigenvalues[ranks - 1])
    weights = 1 / ranks / np.sum(1 / ranks)
    x, y = x - weights @ x, y - weights @ y
    return float(-(weights * x) @ y / ((weights * x) @ x))


def _keys(protocol: Protocol) -> list[Key]:
    return [Key("alpha_req", Leading(min(protocol.top, LAST)))]


@metrics.register("alpha_req", keys=_keys, place=3.6, listed=True, score=lambda value: -abs(value - 1))
def alpha_req(x: Features) -> float:
    """See `power_law`; of the covariance of up to 5,000 test features."""
    return power_law(x.spectrum)
