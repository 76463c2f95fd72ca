"""The whole evaluation of frozen features, as one flat dictionary whose keys name what was measured.

Key: `<readout>/<what>_<protocol>`, values are Python floats, accuracies in [0, 1]. A number measured otherwise gets
another key, so that tables never mix protocols. Readouts are `q`, `p`, `qp`, or `z` where the state is not split.

  q/knn_top1_k20_cosine_majority                      kNN accuracy; top1 and top5, every k
  q/probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50       linear probe; top1 and top5, every learning rate
  q/effective_rank_top256, q/participation_ratio_top256      of the leading eigenvalues of the test covariance
  q/mean_cosine, q/std_cosine, q/p10_cosine, ...      cosines of random pairs, not centred; also p50, p90, min, max
  q/mean_norm, q/std_norm, ...                        Euclidean norms; likewise
  q/uniformity                                        log E exp(−2‖ẑi−ẑj‖²) over all pairs
  q/alignment                                         E‖ẑ1−ẑ2‖² of two views; only if a second view is given

Geometry is that of up to `max_samples` test examples. Neither the number of samples and pairs nor the probe's seed
is in a key: they set the precision of an estimate, not what it estimates.
"""

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
    top: int = TOP_EIGENVALUES,
    max_samples: int = MAX_SAMPLES,
    num_pairs: int = NUM_PAIRS,
    second_view: Features | None = None,
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
      top: leading eigenvalues kept.
      max_samples: test examples used for geometry, drawn at random if there are more.
      num_pairs: pairs of examples for the cosines.
      second_view: [m, K] states of another view of the test images, row by row, for the alignment.
      seed: of the probe, the sample and the pairs.
      mesh: devices the kNN bank is spread over.

    Returns:
      A flat dictionary of floats.

    Raises:
      ValueError: if shapes or label ranges disagree, features are not finite, or a readout does not exist.
    """
    train, test = readouts(train_z, split=split), readouts(test_z, split=split)
    second = None if second_view is None else readouts(second_view, split=split)
    if second is not None and second_view.shape != test_z.shape:
        raise ValueError(f"second_view {second_view.shape} must have the shape of test_z {test_z.shape}.")
    rows = _sample(test_z.shape[0], max_samples, seed)
    metrics = {}
    for name in _chosen(names, test):
        found = {}
        if len(ks):
            accuracy = knn_accuracy(
                train[name], train_y, test[name], test_y, ks=ks, num_classes=num_classes, mesh=mesh
            )
            found |= {f"knn_{t}_k{k}_cosine_majority": a for t, by_k in accuracy.items() for k, a in by_k.items()}
        if probe is not None:
            found |= _probe_metrics(train[name], train_y, test[name], test_y, num_classes, seed, probe)
        z = np.asarray(test[name][rows])
        found |= _geometry_metrics(z, top=top, num_pairs=num_pairs, seed=seed)
        if second is not None:
            found["alignment"] = alignment(z, np.asarray(second[name][rows]))
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
        start, end = f"{name}/knn_top1_k", "_cosine_majority"
        sweep = {int(k[len(start) : -len(end)]): v for k, v in metrics.items() if k.startswith(start)}
        summary[name] = {
            "knn_top1": sweep,
            "spectrum": covariance_spectrum(z, top).tolist(),
            "cosine_histogram": _histogram(random_pair_cosines(z, num_pairs=num_pairs, seed=seed), bins),
            "norm_histogram": _histogram(norms(z), bins),
        }
    return summary


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
    tail = f"wd{settings['weight_decay']:g}_bs{settings['batch_size']}_ep{settings['epochs']}"
    return {
        f"probe_{t}_adamw_lr{rate:g}_{tail}": value
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
    counts, edges = np.histogram(values, bins=bins)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
