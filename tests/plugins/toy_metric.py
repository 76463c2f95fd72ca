"""The mean absolute feature, as a metric with a column and a panel."""

import numpy as np

from hamjepa_jax.metrics import Column, Features, Panel
from hamjepa_jax.parts import metrics


@metrics.register("mean_abs", columns=[Column("mean |z|")], panels=[Panel("Mean absolute feature")])
def mean_abs(x: Features) -> float:
    return float(np.abs(np.asarray(x.test)).mean())
