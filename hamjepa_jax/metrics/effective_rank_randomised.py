"""Effective rank by a randomised decomposition, to set beside the paper's: effective_rank_randomised_top256."""

import numpy as np

from hamjepa_jax.metrics.contract import Features, Protocol
from hamjepa_jax.metrics.keys import Key, Leading
from hamjepa_jax.parts import metrics

POWER_ITERATIONS = 2


def _keys(protocol: Protocol) -> list[Key]:
    return [Key("effective_rank_randomised", Leading(protocol.top))]


@metrics.register("effective_rank_randomised", keys=_keys, place=2.5)
def effective_rank_randomised(x: Features) -> float:
    """`evaluation.effective_rank` of eigenvalues that are found with as many random directions as are wanted.

    Two power iterations and no direction to spare leave the tail of the spectrum too small, by about a quarter at
    the last of 256 eigenvalues. The paper's ranks are of this kind, some per cent below the exact `effective_rank`.
    """
    from sklearn.utils.extmath import randomized_svd

    from hamjepa_jax.evaluation import geometry

    sample = np.asarray(x.sample, np.float64)
    sample = sample - sample.mean(axis=0)
    _, singular, _ = randomized_svd(
        sample,
        min(x.protocol.top, *sample.shape),
        n_oversamples=0,
        n_iter=POWER_ITERATIONS,
        random_state=x.seed,
    )
    return geometry.effective_rank(singular**2)
