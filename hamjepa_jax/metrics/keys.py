"""Keys of metrics as values. A key prints to the string in metrics.json and parses from it, here and nowhere else.

  q/knn_top1_k20_cosine_majority                      Key("knn_top1", Knn(20), "q")
  q/knn_top5_k20_cosine_softmax0.07_5shot             Key("knn_top5", Knn(20, "softmax", 0.07, 5), "q")
  q/knn_top5_published_k20_cosine_majority            Key("knn_top5_published", Knn(20), "q")
  q/probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50       Key("probe_top1", Probe(1e-3, 1e-6, 256, 50), "q")
  q/effective_rank_top256                             Key("effective_rank", Leading(256), "q")
  q/lidar_n1000_v50                                   Key("lidar", Surrogates(1000, 50), "q")
  flow/median_energy_drift_x50                        Key("median_energy_drift", Applications(50), "flow")
  q/mean_cosine                                       Key("mean_cosine", None, "q")

A string of any other form is a quantity without a protocol. Settings that change what a number means are in its
key, so that numbers of different protocols never meet in a table.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

HEADLINE_K = 20


@dataclasses.dataclass(frozen=True)
class Knn:
    """Protocol of a kNN accuracy.

    Attributes:
      k: number of neighbours.
      vote: "majority" or "softmax".
      temperature: of the softmax vote; None for the majority vote.
      shots: labelled training examples a class; None for all of them.
      similarity: of two features.
    """

    k: int
    vote: str = "majority"
    temperature: float | None = None
    shots: int | None = None
    similarity: str = "cosine"

    def __str__(self) -> str:
        temperature = "" if self.temperature is None else f"{self.temperature:g}"
        return f"k{self.k}_{self.similarity}_{self.vote}{temperature}{_shots(self.shots)}"

    def in_words(self) -> str:
        """ "cosine, softmax vote at temperature 0.07, 5 labelled examples a class"; k is left out."""
        text = f"{self.similarity}, {self.vote} vote"
        text += "" if self.temperature is None else f" at temperature {self.temperature:g}"
        return text + ("" if self.shots is None else f", {self.shots} labelled examples a class")

    def is_like(self, other: "Knn") -> bool:
        """Whether the two differ in k at most."""
        return dataclasses.replace(self, k=other.k) == other


@dataclasses.dataclass(frozen=True)
class Probe:
    """Protocol of a linear probe's accuracy.

    Attributes:
      learning_rate: at the first step.
      weight_decay: decoupled.
      batch_size: examples a step.
      epochs: passes over the training features.
      shots: labelled training examples a class; None for all of them.
      optimizer: its name.
    """

    learning_rate: float
    weight_decay: float
    batch_size: int
    epochs: int
    shots: int | None = None
    optimizer: str = "adamw"

    def __str__(self) -> str:
        return (
            f"{self.optimizer}_lr{self.learning_rate:g}_wd{self.weight_decay:g}_bs{self.batch_size}_ep{self.epochs}"
            f"{_shots(self.shots)}"
        )


@dataclasses.dataclass(frozen=True)
class Leading:
    """Protocol of a number that is computed from the `count` leading eigenvalues of the covariance."""

    count: int

    def __str__(self) -> str:
        return f"top{self.count}"


@dataclasses.dataclass(frozen=True)
class Surrogates:
    """Protocol of a number that takes each of `images` images, seen in `views` random views, for a class."""

    images: int
    views: int

    def __str__(self) -> str:
        return f"n{self.images}_v{self.views}"


@dataclasses.dataclass(frozen=True)
class Applications:
    """Protocol of a number that is measured after `count` applications of the flow."""

    count: int

    def __str__(self) -> str:
        return f"x{self.count}"


@dataclasses.dataclass(frozen=True)
class Key:
    """The key of a metric.

    Attributes:
      quantity: "knn_top1", "uniformity".
      protocol: how it was measured, in so far as that changes what the number means.
      readout: q, p, qp or z, or "flow"; None where it is not said.
    """

    quantity: str
    protocol: Knn | Probe | Leading | Surrogates | Applications | None = None
    readout: str | None = None

    def __str__(self) -> str:
        readout = "" if self.readout is None else f"{self.readout}/"
        return readout + self.quantity + ("" if self.protocol is None else f"_{self.protocol}")

    def of(self, readout: str | None) -> "Key":
        """The same key of another readout; None takes the readout away."""
        return dataclasses.replace(self, readout=readout)

    def measures(self, quantity: str) -> bool:
        """Whether this is a key of the quantity, by any protocol."""
        return quantity in (self.quantity, str(self.of(None)))


_NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_SHOTS = r"(?:_(\d+)shot)?"
_GRAMMAR = (
    (
        rf"k(\d+)_([a-z]+)_([a-z]+?){_NUMBER}?{_SHOTS}",
        lambda k, similarity, vote, t, shots: Knn(int(k), vote, _float(t), _int(shots), similarity),
    ),
    (
        rf"([a-z]+)_lr{_NUMBER}_wd{_NUMBER}_bs(\d+)_ep(\d+){_SHOTS}",
        lambda name, lr, wd, bs, ep, shots: Probe(float(lr), float(wd), int(bs), int(ep), _int(shots), name),
    ),
    (r"top(\d+)", lambda count: Leading(int(count))),
    (r"n(\d+)_v(\d+)", lambda images, views: Surrogates(int(images), int(views))),
    (r"x(\d+)", lambda count: Applications(int(count))),
)


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Key:
    """The key that prints to `text`.

    >>> parse("q/effective_rank_top256")
    Key(quantity='effective_rank', protocol=Leading(count=256), readout='q')
    """
    readout, slash, measured = text.partition("/")
    if not slash:
        readout, measured = None, text
    for pattern, make in _GRAMMAR:
        match = re.fullmatch(rf"(.+?)_{pattern}", measured)
        key = match and Key(match[1], make(*match.groups()[1:]), readout)
        if key and str(key) == text:  # A number may be spelled otherwise than it prints.
            return key
    return Key(measured, None, readout)


def knn(
    k: int, *, top: int = 1, vote: str = "majority", temperature: float = 0.07, shots: int | None = None
) -> Key:
    """The key of a kNN accuracy, top-1 or top-5; the temperature counts for the softmax vote only.

    >>> str(knn(20).of("q"))
    'q/knn_top1_k20_cosine_majority'
    """
    return Key(f"knn_top{top}", Knn(k, vote, _as_printed(temperature) if vote == "softmax" else None, shots))


def probe(learning_rate: float, settings: Mapping[str, Any], *, top: int = 1, shots: int | None = None) -> Key:
    """The key of a linear probe's accuracy, top-1 or top-5.

    Args:
      learning_rate: one rate.
      settings: with "weight_decay", "batch_size" and "epochs"; others are ignored.
      top: 1 or 5.
      shots: labelled training examples a class; all of them if None.

    >>> str(probe(1e-3, {"weight_decay": 1e-6, "batch_size": 256, "epochs": 50}))
    'probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50'
    """
    rate, decay = _as_printed(learning_rate), _as_printed(settings["weight_decay"])
    return Key(f"probe_top{top}", Probe(rate, decay, settings["batch_size"], settings["epochs"], shots))


def first(texts: Iterable[str], quantity: str) -> str | None:
    """The first of the printed keys that is one of the quantity; None if there is none."""
    return next((text for text in texts if parse(text).measures(quantity)), None)


def knn_protocol(texts: Iterable[str]) -> Knn | None:
    """The protocol of the first kNN accuracy (top-1) among the printed keys; None without kNN."""
    found = first(texts, "knn_top1")
    return None if found is None else parse(found).protocol


def knn_sweep(metrics: Mapping[str, float], protocol: Knn | None = None) -> dict[int, float]:
    """{k: top-1 accuracy} of one readout's metrics, ascending in k.

    Args:
      metrics: of one readout.
      protocol: which of them, at any k; that of the first kNN accuracy if None.
    """
    protocol = knn_protocol(metrics) if protocol is None else protocol
    accuracies = {parse(text): value for text, value in metrics.items()}
    found = {key.protocol.k: v for key, v in accuracies.items() if _is_knn(key) and key.protocol.is_like(protocol)}
    return dict(sorted(found.items()))


def headline_k(ks: Iterable[int]) -> int:
    """The k that tables show of those that were measured: 20, or the largest where 20 is not among them.

    >>> headline_k((1, 5, 20, 200)), headline_k((1, 5))
    (20, 5)
    """
    measured = set(ks)
    return HEADLINE_K if HEADLINE_K in measured or not measured else max(measured)


def best_knn(metrics: Mapping[str, float]) -> dict[str, tuple[int, float]]:
    """{readout: (k, its top-1 accuracy)} of the k with the highest accuracy; of equal ones the smallest."""
    by_readout: dict[str, dict[str, float]] = {}
    for text, value in metrics.items():
        if _is_knn(parse(text)):
            by_readout.setdefault(parse(text).readout, {})[text] = value
    sweeps = {readout: knn_sweep(accuracies) for readout, accuracies in by_readout.items()}
    return {readout: max(sweep.items(), key=lambda item: item[1]) for readout, sweep in sweeps.items()}


def is_accuracy(text: str) -> bool:
    """Whether a printed key is that of a top-1 accuracy, of kNN or of the probe."""
    key = parse(text)
    return _is_knn(key) or (key.quantity == "probe_top1" and isinstance(key.protocol, Probe))


def _is_knn(key: Key) -> bool:
    return key.quantity == "knn_top1" and isinstance(key.protocol, Knn)


def _as_printed(number: float) -> float:
    """The number that a key holds, to six digits."""
    return float(f"{number:g}")


def _shots(shots: int | None) -> str:
    return "" if shots is None else f"_{shots}shot"


def _float(text: str | None) -> float | None:
    return None if text is None else float(text)


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)
