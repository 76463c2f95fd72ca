"""The whole evaluation of frozen features: a flat dictionary, its keys named after quantity and protocol.

Key: `<readout>/<quantity>_<protocol>`; values are Python floats, accuracies in [0, 1]. A number that is measured
otherwise gets another key, so that tables never mix protocols. Readouts are `q`, `p`, `qp`, or `z` where the state
is not split.

  q/knn_top1_k20_cosine_majority                      kNN accuracy; top1 and top5, every k
  q/knn_top1_k20_cosine_softmax0.07                   votes weighed by exp(cosine / 0.07)
  q/knn_top5_published_k20_cosine_majority            top-5 as the published numbers have it, only if asked for:
                                                      classes without a vote fill up the five places and may be
                                                      right. knn_top5 counts none of them; runs evaluated with
                                                      earlier versions counted them in knn_top5.
  q/probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50       linear probe; top1 and top5, every learning rate
  q/knn_…_5shot, q/probe_…_5shot                      from 5 labelled training examples a class, drawn by the seed
  q/effective_rank_top256, q/participation_ratio_top256      of the 256 leading eigenvalues of the test
                                                      features' covariance
  q/effective_rank_randomised_top256                  the same by a randomised decomposition, as the paper's ranks
  q/rankme, q/stable_rank, q/alpha_req_top100         label-free measures of quality, see their files
  q/lidar_n1000_v50                                   of 1,000 images in 50 random views each; only if given
  q/uniformity                                        log E exp(−2‖ẑi−ẑj‖²) over all pairs
  q/mean_cosine, q/std_cosine, q/p10_cosine, ...      cosines of random pairs, not centred; also p50, p90, min, max
  q/mean_norm, q/std_norm, ...                        Euclidean norms; likewise
  q/alignment_views, q/uniformity_views               E‖ẑ1−ẑ2‖² of two random views of each example, and the mean
                                                      uniformity of the two; only if views are given

Each is a file of `hamjepa_jax.metrics`; your own metrics follow them. Geometry is that of up to `max_samples`
(5,000) test examples, drawn at random if there are more; published spectra are of training features, by a
randomised decomposition that underestimates the tail. Neither the number of samples and pairs nor the probe's seed
is in a key: they set the precision of an estimate, not what it estimates.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax.evaluation.checks import Features
from hamjepa_jax.evaluation.features import readouts
from hamjepa_jax.evaluation.geometry import covariance_spectrum, norms, random_pair_cosines
from hamjepa_jax.metrics import contract, expected_keys, keys, measure
from hamjepa_jax.metrics.contract import KS, MAX_SAMPLES, NUM_PAIRS, PROBE, TOP_EIGENVALUES
from hamjepa_jax.parts import Values
from hamjepa_jax.rng import stream


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
    published_top5: bool = False,
    top: int = TOP_EIGENVALUES,
    max_samples: int = MAX_SAMPLES,
    num_pairs: int = NUM_PAIRS,
    views: tuple[Features, Features] | None = None,
    surrogates: np.ndarray | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
    plugins: Sequence[str] | None = None,
    settings: Mapping[str, Values] | None = None,
) -> dict[str, float]:
    """Every registered metric of every readout; the keys are explained at the top of this module.

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
      published_top5: whether to count the kNN's top-5 as the published numbers do as well, see `knn_accuracy`.
      top: leading eigenvalues kept.
      max_samples: test examples used for geometry, drawn at random if there are more.
      num_pairs: pairs of examples for the cosines.
      views: states of two random views of the test images, [m, K] each, for alignment and uniformity.
      surrogates: states of v random views of each of n test images, [n, v, K], for LiDAR.
      seed: of the probe, the few shots, the sample and the pairs.
      mesh: devices the kNN bank is spread over.
      plugins: of the config; their metrics are measured too. If None, those of all that were loaded.
      settings: {name of a metric: values of its settings}; the defaults for the others.

    Returns:
      A flat dictionary of floats.

    Raises:
      ValueError: if shapes or label ranges disagree, features are not finite, a readout does not exist, or a class
        has fewer examples than shots.
      UserError: if two metrics have one key, or one gives other keys than it states.
    """
    if views is not None and any(view.shape != test_z.shape for view in views):
        raise ValueError(f"views {[v.shape for v in views]} must have the shape of test_z {test_z.shape}.")
    if shots is not None:
        chosen = few_shot_rows(train_y, shots, num_classes=num_classes, seed=seed)
        train_z, train_y = train_z[chosen], np.asarray(train_y)[chosen]
    train, test = readouts(train_z, split=split), readouts(test_z, split=split)
    seen = [readouts(view, split=split) for view in views or ()]
    rows = _sample(test_z.shape[0], max_samples, seed)
    asked = contract.Protocol(
        ks, probe, vote, temperature, shots, top, num_pairs,
        views=views is not None, published_top5=published_top5,
        lidar=None if surrogates is None else surrogates.shape[:2],
    )  # fmt: skip
    classes = None if surrogates is None else _of_images(surrogates, split)
    found = {}
    for name in _chosen(names, test):
        x = contract.Features(
            train=train[name],
            train_labels=train_y,
            test=test[name],
            test_labels=test_y,
            sample=np.asarray(test[name][rows]),
            views=tuple(np.asarray(view[name][rows]) for view in seen) or None,
            num_classes=num_classes,
            protocol=asked,
            seed=seed,
            mesh=mesh,
            surrogates=None if classes is None else classes[name],
        )
        measured = measure(x, plugins=plugins, settings=settings)
        found |= {str(key.of(name)): value for key, value in measured.items()}
    return found


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
    """The content of each readout's four-panel figure, small enough for a JSON file.

    Args:
      test_z: [m, K] states of the test images.
      metrics: result of `evaluate_features` on them; its kNN sweep is copied.
      split: as there; so are the arguments that are not named here.
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
        of_readout = {keys.parse(text): value for text, value in metrics.items()}
        of_readout = {str(key.of(None)): value for key, value in of_readout.items() if key.readout == name}
        summary[name] = {
            "knn_top1": keys.knn_sweep(of_readout),
            "spectrum": covariance_spectrum(z, top).tolist(),
            "cosine_histogram": _histogram(random_pair_cosines(z, num_pairs=num_pairs, seed=seed), bins),
            "norm_histogram": _histogram(norms(z), bins),
        }
    return summary


def accuracy_keys(*, ks: Sequence[int], probe: Mapping[str, Any] | None) -> list[str]:
    """Keys, without the readout, of the top-1 accuracies that `evaluate_features` finds with these settings."""
    found = expected_keys(contract.Protocol(ks=ks, probe=probe), [None])
    return [key for key in found if keys.is_accuracy(key)]


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


def _chosen(names: Sequence[str] | None, available: Mapping[str, Features]) -> Sequence[str]:
    unknown = set(names or ()) - set(available)
    if unknown:
        raise ValueError(f"readouts {sorted(unknown)} do not exist; these states have {sorted(available)}.")
    return tuple(available) if names is None else names


def _of_images(states: np.ndarray, split: bool) -> dict[str, np.ndarray]:
    """{readout: [n, v, d]} of states [n, v, K]."""
    flat = readouts(states.reshape(-1, states.shape[-1]), split=split)
    return {name: x.reshape(*states.shape[:2], -1) for name, x in flat.items()}


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
