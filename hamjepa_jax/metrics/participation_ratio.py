"""Participation ratio of the leading eigenvalues of the test covariance: participation_ratio_top256."""

from hamjepa_jax.metrics.contract import Features, Protocol
from hamjepa_jax.metrics.keys import Key, Leading
from hamjepa_jax.parts import metrics


def _keys(protocol: Protocol) -> list[Key]:
    return [Key("participation_ratio", Leading(protocol.top))]


@metrics.register("participation_ratio", keys=_keys, place=3, score=lambda value: value)
def participation_ratio(x: Features) -> float:
    """(Σλ)² / Σλ² of the test features, see `evaluation.participation_ratio`; up to 5,000 of them."""
    from hamjepa_jax.evaluation import geometry

    return geometry.participation_ratio(x.spectrum)
