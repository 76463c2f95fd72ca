"""Accuracy of k nearest neighbours: knn_top1_k20_cosine_majority, top-1 and top-5 at every k.

A class without votes is never right; knn_top5_published_k20_cosine_majority, on request, counts as the published
numbers do.
"""

import dataclasses
import functools
import logging
import statistics
from collections.abc import Sequence

from hamjepa_jax.metrics import keys
from hamjepa_jax.metrics.contract import (
    LEARNING_CURVE,
    RUN_TABLE,
    TRAINING_DYNAMICS,
    Column,
    Features,
    Metrics,
    Panel,
    Protocol,
    Shown,
)
from hamjepa_jax.parts import metrics

log = logging.getLogger(__name__)


class AtK(Column):
    """The accuracy at the k that a table asks for."""

    def shown(self, texts: Sequence[str], headline_k: int) -> Shown:
        protocol = keys.knn_protocol(texts)

        def pick(runs: Sequence[Metrics]) -> tuple[list[float], str]:
            sweeps = _sweeps(runs, protocol)
            return [sweep[headline_k] for sweep in sweeps if headline_k in sweep], ""

        note = "" if protocol is None else f"kNN: {protocol.in_words()}"
        return Shown(f"kNN@{headline_k} %", pick, self.factor, self.digits, note)


class Best(Column):
    """The accuracy at the k whose mean over seeds is highest; the remark is that k."""

    def shown(self, texts: Sequence[str], headline_k: int) -> Shown | None:
        protocol = keys.knn_protocol(texts)
        if protocol is None and not self.always:
            return None

        def pick(runs: Sequence[Metrics]) -> tuple[list[float], str]:
            sweeps = _sweeps(runs, protocol)
            by_k = {k: [s[k] for s in sweeps if k in s] for k in sorted({k for s in sweeps for k in s})}
            best = max(by_k, key=lambda k: statistics.mean(by_k[k]), default=None)
            return ([], "") if best is None else (by_k[best], str(best))

        note = "" if protocol is None else "best k chosen on the test set"
        return Shown(self.title, pick, self.factor, self.digits, note)


def _sweeps(runs: Sequence[Metrics], protocol: keys.Knn | None) -> list[dict[int, float]]:
    return [] if protocol is None else [keys.knn_sweep(run, protocol) for run in runs]


def _shown(found: Metrics) -> float | None:
    sweep = keys.knn_sweep(found)
    return sweep[keys.headline_k(sweep)] if sweep else None


def _highest(found: Metrics) -> float | None:
    return max(keys.knn_sweep(found).values(), default=None)


def _lowest(found: Metrics) -> float | None:
    return min(keys.knn_sweep(found).values(), default=None)


def _keys(protocol: Protocol) -> list[keys.Key]:
    counts = ("top1", "top5", "top5_published") if protocol.published_top5 else ("top1", "top5")
    return [_key(k, count, protocol) for count in counts for k in protocol.ks]


def _key(k: int, count: str, protocol: Protocol) -> keys.Key:
    asked = keys.knn(int(k), vote=protocol.vote, temperature=protocol.temperature, shots=protocol.shots)
    return dataclasses.replace(asked, quantity=f"knn_{count}")


@metrics.register(
    "knn",
    keys=_keys,
    place=0,
    columns=[
        AtK("kNN %", factor=100, tables=(RUN_TABLE,)),
        Best("best kNN % (k)", factor=100),
    ],
    panels=[
        Panel(
            f"kNN, k = {keys.HEADLINE_K} or else the largest",
            "top-1 accuracy (%)",
            factor=100,
            figures=(LEARNING_CURVE,),
            place=0,
            from_zero=True,
            pick=_shown,
        ),
        Panel(
            "kNN, best k (band: down to the worst k)",
            "top-1 accuracy (%)",
            factor=100,
            figures=(TRAINING_DYNAMICS,),
            place=2,
            pick=_highest,
            down_to=_lowest,
            always=True,
        ),
    ],
)
def knn(x: Features) -> dict[keys.Key, float]:
    """Top-1 and top-5 accuracy at every k of the protocol, see `evaluation.knn_accuracy`."""
    from hamjepa_jax.evaluation.knn import knn_accuracy

    asked = x.protocol
    beyond = tuple(k for k in asked.ks if k > len(x.train_labels))
    if beyond:
        _say_beyond(beyond, len(x.train_labels))
    accuracy = knn_accuracy(
        x.train,
        x.train_labels,
        x.test,
        x.test_labels,
        ks=asked.ks,
        num_classes=x.num_classes,
        vote=asked.vote,
        temperature=asked.temperature,
        published=asked.published_top5,
        mesh=x.mesh,
    )
    return {_key(k, count, asked): value for count, by_k in accuracy.items() for k, value in by_k.items()}


@functools.cache  # Once, and not for every readout and evaluation.
def _say_beyond(ks: tuple[int, ...], examples: int) -> None:
    log.warning(
        "kNN with k = %s: there are only %d labelled training examples, and all of them vote.",
        ", ".join(map(str, ks)),
        examples,
    )
