"""The whole evaluation of frozen features, as one flat dictionary whose keys name what was measured.

Key: `<readout>/<what>_<protocol>`, values are Python floats, accuracies in [0, 1]. A number measured otherwise gets
another key, so that tables never mix protocols. Readouts are `q`, `p`, `qp`, or `z` where the state is not split.

  q/knn_top1_k20_cosine_majority                      kNN accuracy; top1 and top5, every k
  q/knn_top1_k20_cosine_softmax0.07                   votes weighed by exp(cosine / 0.07)
  q/probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50       linear probe; top1 and top5, every learning rate
  q/knn_…_5shot, q/probe_…_5shot                      from 5 labelled training examples a class, drawn by the seed
  q/effective_rank_top256, q/participation_ratio_top256      of the leading eigenvalues of the test covariance
  q/mean_cosine, q/std_cosine, q/p10_cosine, ...      cosines of random pairs, not centred; also p50, p90, min, max
  q/mean_norm, q/std_norm, ...                        Euclidean norms; likewise
  q/uniformity                                        log E exp(−2‖ẑi−ẑj‖²) over all pairs
  q/alignment_views, q/uniformity_views               E‖ẑ1−ẑ2‖² of two random views of each example, and the mean
                                                      uniformity of the two; only if views are given

Geometry is that of up to `max_samples` test examples. Neither the number of samples and pairs nor the probe's seed
is in a key: they set the precision of an estimate, not what it estimates.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax.evaluation.checks import Features
from hamjepa_jax.evaluation.features import readouts
from hamjepa_jax.evaluation.geometry import (
    alignment,
    covariance_spectrum,
    effective_rank,
    norms,
    participation_ratio,
    random_pair_cosines,
    summary_statistics,
    uniformity,
)
from hamjepa_jax.evaluation.knn import knn_accuracy
from hamjepa_jax.evaluation.probe import linear_probe
from hamjepa_jax.rng import stream

# The paper's protocol.
KS = (1, 5, 10, 20, 50, 100, 200)
PROBE = {"epochs": 50, "batch_size": 256, "learning_rate": 1e-3, "weight_decay": 1e-6}
TOP_EIGENVALUES = 256
MAX_SAMPLES = 5000
NUM_PAIRS = 20_000


def evaluate_features(
    train_z: Features,
    train_y: Features,
    test_z: Features,
    test_y: Features,
    *,
    num_classes: int,
    split: bool,
    names: Sequence[str] | None = None,
    ks: Sequence[int] = KS,
    probe: Mapping[str, Any] | None = PROBE,
    vote: str = "majority",
    temperature: float = 0.07,
    shots: int | None = None,
    top: int = TOP_EIGENVALUES,
    max_samples: int = MAX_SAMPLES,
    num_pairs: int = NUM_PAIRS,
    views: tuple[Features, Features] | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """kNN, linear probe and geometry of every readout; the keys are explained at the top of this module.

    Args:
      train_z: [n, K] states of the training images, un-augmented.
      train_y: [n] integer labels in [0, num_classes).
      test_z: [m, K] states of the test images.
      test_y: [m] labels.
      num_classes: number of classes.
      split: whether the states are z = [q; p].
      names: readouts to evaluate, in this order, out of q, p, qp (split) or z; all if None.
      ks: numbers of neighbours; empty leaves kNN out.
      probe: the settings of `linear_probe` (epochs, batch_size, learning_rate, weight_decay), or None for no probe.
      vote, temperature: of the kNN, see `knn_accuracy`.
      shots: labelled training examples a class for kNN and probe; all of them if None.
      top: leading eigenvalues kept.
      max_samples: test examples used for geometry, drawn at random if there are more.
      num_pairs: pairs of examples for the cosines.
      views: states of two random views of the test images, [m, K] each, for alignment and uniformity.
      seed: of the probe, the few shots, the sample and the pairs.
      mesh: devices the kNN bank is spread over.

    Returns:
      A flat dictionary of floats.

    Raises:
      ValueError: if shapes or label ranges disagree, features are not finite, a readout does not exist, or a class
        has fewer examples than shots.
    """
    if views is not None and any(view.shape != test_z.shape for view in views):
        raise ValueError(f"views {[v.shape for v in views]} must have the shape of test_z {test_z.shape}.")
    if shots is not None:
        chosen = few_shot_rows(train_y, shots, num_classes=num_classes, seed=seed)
        train_z, train_y = train_z[chosen], np.asarray(train_y)[chosen]
    train, test = readouts(train_z, split=split), readouts(test_z, split=split)
    seen = [readouts(view, split=split) for view in views or ()]
    knn_protocol, tail = knn_tail(vote=vote, temperature=temperature, shots=shots), shots_tail(shots)
    rows = _sample(test_z.shape[0], max_samples, seed)
    metrics = {}
    for name in _chosen(names, test):
        found = {}
        if len(ks):
            accuracy = knn_accuracy(
                train[name],
                train_y,
                test[name],
                test_y,
                ks=ks,
                num_classes=num_classes,
                vote=vote,
                temperature=temperature,
                mesh=mesh,
            )
            found |= {f"knn_{t}_k{k}_{knn_protocol}": a for t, by_k in accuracy.items() for k, a in by_k.items()}
        if probe is not None:
            by_key = _probe_metrics(train[name], train_y, test[name], test_y, num_classes, seed, probe)
            found |= {key + tail: value for key, value in by_key.items()}
        z = np.asarray(test[name][rows])
        found |= _geometry_metrics(z, top=top, num_pairs=num_pairs, seed=seed)
        if seen:
            one, other = (np.asarray(view[name][rows]) for view in seen)
            found["alignment_views"] = alignment(one, other)
            found["uniformity_views"] = (uniformity(one) + uniformity(other)) / 2
        metrics |= {f"{name}/{key}": float(value) for key, value in found.items()}
    return metrics


def feature_summary(
    test_z: Features,
    metrics: Mapping[str, float],
    *,
    split: bool,
    names: Sequence[str] | None = None,
    top: int = TOP_EIGENVALUES,
    max_samples: int = MAX_SAMPLES,
    num_pairs: int = NUM_PAIRS,
    bins: int = 50,
    seed: int = 0,
) -> dict[str, dict]:
    """What the four-panel figure of each readout shows, small enough for a JSON file.

    Args:
      test_z: [m, K] states of the test images.
      metrics: result of `evaluate_features` on them; its kNN sweep is copied.
      split: as there, like the arguments not named here.
      bins: bins of the two histograms.

    Returns:
      {readout: {"knn_top1": {k: accuracy}, "spectrum": [top], "cosine_histogram", "norm_histogram"}}, a histogram
      being {"edges": [bins + 1], "counts": [bins]}.

    Raises:
      ValueError: if features are not finite or a readout does not exist.
    """
    test = readouts(test_z, split=split)
    rows = _sample(test_z.shape[0], max_samples, seed)
    summary = {}
    for name in _chosen(names, test):
        z = np.asarray(test[name][rows])
        matches = {re.match(rf"{name}/knn_top1_k(\d+)_", key): value for key, value in metrics.items()}
        sweep = {int(match[1]): value for match, value in matches.items() if match}
        summary[name] = {
            "knn_top1": sweep,
            "spectrum": covariance_spectrum(z, top).tolist(),
            "cosine_histogram": _histogram(random_pair_cosines(z, num_pairs=num_pairs, seed=seed), bins),
            "norm_histogram": _histogram(norms(z), bins),
        }
    return summary


def accuracy_keys(*, ks: Sequence[int], probe: Mapping[str, Any] | None) -> list[str]:
    """Keys, without the readout, of the top-1 accuracies that `evaluate_features` finds with these settings."""
    keys = [f"knn_top1_k{k}_{knn_tail()}" for k in ks]
    if probe is not None:
        keys += [f"probe_top1_{probe_tail(rate, probe)}" for rate in np.atleast_1d(probe["learning_rate"]).tolist()]
    return keys


def knn_tail(*, vote: str = "majority", temperature: float = 0.07, shots: int | None = None) -> str:
    """The part of a kNN key that names its protocol."""
    weight = f"{temperature:g}" if vote == "softmax" else ""
    return f"cosine_{vote}{weight}{shots_tail(shots)}"


def shots_tail(shots: int | None) -> str:
    return "" if shots is None else f"_{shots}shot"


def probe_tail(rate: float, probe: Mapping[str, Any]) -> str:
    """The part of a probe's key that names its protocol."""
    return f"adamw_lr{rate:g}_wd{probe['weight_decay']:g}_bs{probe['batch_size']}_ep{probe['epochs']}"


def few_shot_rows(labels: Sequence[int], shots: int, *, num_classes: int, seed: int) -> np.ndarray:
    """Row numbers of `shots` random examples of each class, ascending.

    Args:
      labels: [n] integer labels in [0, num_classes).
      shots: examples a class, at least 1.
      num_classes: number of classes.
      seed: of the draw.

    Returns:
      [shots · num_classes] row numbers; a smaller number of shots with the same seed draws among them.

    Raises:
      ValueError: if shots is not positive or a class has fewer examples.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels, minlength=num_classes)
    if not 1 <= shots <= counts.min():
        raise ValueError(
            f"{shots} labelled examples a class: choose from 1 to {counts.min()}, the size of the smallest class."
        )
    order = np.asarray(jax.random.permutation(stream(seed, "few_shot"), labels.shape[0]))
    return np.sort(np.concatenate([order[labels[order] == c][:shots] for c in range(num_classes)]))


def _probe_metrics(
    train_z: Features,
    train_y: Features,
    test_z: Features,
    test_y: Features,
    num_classes: int,
    seed: int,
    probe: Mapping[str, Any],
) -> dict[str, float]:
    settings = dict(probe)
    rates = settings.pop("learning_rate")
    rates = tuple(np.atleast_1d(rates).tolist())
    accuracy = linear_probe(
        train_z, train_y, test_z, test_y, num_classes=num_classes, learning_rate=rates, seed=seed, **settings
    )
    return {
        f"probe_{t}_{probe_tail(rate, settings)}": value
        for rate, result in accuracy["by_learning_rate"].items()
        for t, value in result.items()
    }


def _geometry_metrics(z: np.ndarray, *, top: int, num_pairs: int, seed: int) -> dict[str, float]:
    spectrum = covariance_spectrum(z, top)
    found = {
        f"effective_rank_top{top}": effective_rank(spectrum),
        f"participation_ratio_top{top}": participation_ratio(spectrum),
        "uniformity": uniformity(z),
    }
    distributions = {"cosine": random_pair_cosines(z, num_pairs=num_pairs, seed=seed), "norm": norms(z)}
    for quantity, values in distributions.items():
        found |= {f"{statistic}_{quantity}": v for statistic, v in summary_statistics(values).items()}
    return found


def _chosen(names: Sequence[str] | None, available: Mapping[str, Features]) -> Sequence[str]:
    unknown = set(names or ()) - set(available)
    if unknown:
        raise ValueError(f"readouts {sorted(unknown)} do not exist; these states have {sorted(available)}.")
    return tuple(available) if names is None else names


def _sample(n: int, max_samples: int, seed: int) -> np.ndarray:
    """Row numbers of a random sample without repeats, ascending; all rows if they are few enough."""
    if n <= max_samples:
        return np.arange(n)
    return np.sort(np.asarray(jax.random.permutation(stream(seed, "geometry.sample"), n)[:max_samples]))


def _histogram(values: np.ndarray, bins: int) -> dict[str, list]:
    values = np.asarray(values, np.float64)
    low, high = values.min(), values.max()
    least = 1e-6 * max(abs(low), abs(high))  # Features all but equal: of float32's roundoff no bins can be made.
    if high - low < least:
        low, high = low - least, high + least
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    return {"edges": edges.tolist(), "counts": counts.tolist()}
