"""Accuracy of a linear probe: probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50, top-1 and top-5 at every rate."""

from hamjepa_jax.metrics import keys
from hamjepa_jax.metrics.contract import RUN_TABLE, Column, Features, Panel, Protocol
from hamjepa_jax.parts import metrics


def _keys(protocol: Protocol) -> list[keys.Key]:
    if protocol.probe is None:
        return []
    return [_key(rate, top, protocol) for rate in protocol.learning_rates() for top in (1, 5)]


def _key(rate: float, top: int, protocol: Protocol) -> keys.Key:
    return keys.probe(rate, protocol.probe, top=top, shots=protocol.shots)


@metrics.register(
    "probe",
    keys=_keys,
    place=1,
    columns=[
        Column(
            "probe %",
            "probe_top1",
            factor=100,
            tables=(RUN_TABLE,),
            note=lambda key: f"probe: {key.protocol}",
            always=True,
        )
    ],
    panels=[
        Panel(
            "Linear probe",
            "top-1 accuracy (%)",
            "probe_top1",
            factor=100,
            place=1,
            from_zero=True,
            always=True,
        )
    ],
)
def probe(x: Features) -> dict[keys.Key, float]:
    """Top-1 and top-5 accuracy for every learning rate, see `evaluation.linear_probe`."""
    from hamjepa_jax.evaluation.probe import linear_probe

    settings = dict(x.protocol.probe) | {"learning_rate": tuple(x.protocol.learning_rates())}
    found = linear_probe(
        x.train, x.train_labels, x.test, x.test_labels, num_classes=x.num_classes, seed=x.seed, **settings
    )
    return {
        _key(rate, top, x.protocol): accuracy[f"top{top}"]
        for rate, accuracy in found["by_learning_rate"].items()
        for top in (1, 5)
    }
