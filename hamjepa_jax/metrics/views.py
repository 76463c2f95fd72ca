"""Alignment and uniformity of two random views of each test image: alignment_views, uniformity_views."""

from hamjepa_jax.metrics.contract import Features, Protocol
from hamjepa_jax.parts import metrics


def _keys(protocol: Protocol) -> list[str]:
    return ["alignment_views", "uniformity_views"] if protocol.views else []


@metrics.register("views", keys=_keys, place=7, listed=True)
def views(x: Features) -> dict[str, float]:
    """E‖ẑ1−ẑ2‖² over the examples, and the mean uniformity of the two views."""
    from hamjepa_jax.evaluation.geometry import alignment, uniformity

    one, other = x.views
    return {
        "alignment_views": alignment(one, other),
        "uniformity_views": (uniformity(one) + uniformity(other)) / 2,
    }
