"""log E exp(−2‖ẑi−ẑj‖²) over all pairs of test features: uniformity."""

from hamjepa_jax.metrics.contract import Features
from hamjepa_jax.parts import metrics


@metrics.register("uniformity", place=4)
def uniformity(x: Features) -> float:
    """See `evaluation.uniformity`."""
    from hamjepa_jax.evaluation import geometry

    return geometry.uniformity(x.sample)
