"""Stable rank of the test features: stable_rank. Needs no labels."""

import numpy as np

from hamjepa_jax.metrics.contract import Features
from hamjepa_jax.parts import metrics


@metrics.register("stable_rank", place=3.4, listed=True, score=lambda value: value)
def stable_rank(x: Features) -> float:
    """‖X‖²_F / ‖X‖²₂ of the centred features X (Rudelson & Vershynin, 2007): their variance over its largest part.

    Of up to 5,000 test features. At least 1 and at most the rank; 0 of features that are all equal. It is centred
    as all geometry here is: the mean of features that are not would be their largest direction, and hide the rest.
    """
    largest = float(x.spectrum[0])
    variance = float(np.asarray(x.sample, np.float64).var(axis=0, ddof=1).sum())
    return variance / largest if largest > 0 else 0.0
