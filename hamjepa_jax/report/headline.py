"""The two accuracies that tables over runs show, and the protocol they were measured by in words."""

import dataclasses
from collections.abc import Mapping

from hamjepa_jax.errors import UserError
from hamjepa_jax.metrics import keys
from hamjepa_jax.report.finished import FinishedRun

_USE = {"knn": "as bank", "probe": "for the probe"}  # Of the training images.


def headline_keys(run: FinishedRun) -> dict[str, str]:
    """{"knn": key, "probe": key} of the accuracies in the tables, of those that were measured.

    Raises:
      UserError: if nothing was measured.
    """
    metrics = next(iter(run.readouts().values()), None)
    if metrics is None:
        raise UserError(f"{run.workdir / 'metrics.json'}: has no numbers of a readout; evaluate the run again.")
    sweep, found = keys.knn_sweep(metrics), {}
    if sweep:
        protocol = dataclasses.replace(keys.knn_protocol(metrics), k=keys.headline_k(sweep))
        found["knn"] = str(keys.Key("knn_top1", protocol))
    probe = keys.first(metrics, "probe_top1")
    return found | ({} if probe is None else {"probe": probe})


def headline_accuracies(metrics: Mapping[str, float]) -> dict[str, float]:
    """The top-1 accuracies of kNN at the k of tables and of the probe, of every readout and protocol."""
    protocols = {text: keys.parse(text).protocol for text in metrics if keys.is_accuracy(text)}
    ks = {text: protocol.k for text, protocol in protocols.items() if isinstance(protocol, keys.Knn)}
    shown = keys.headline_k(ks.values())
    return {text: metrics[text] for text in protocols if ks.get(text, shown) == shown}


def describe_protocol(headline: Mapping[str, str]) -> str:
    """The protocols of `headline_keys` in sentences."""
    if not headline:
        return "No accuracy was measured: the images have no labels, or kNN and probe were left out."
    protocols = {kind: keys.parse(key).protocol for kind, key in headline.items()}
    uses = " and ".join(_USE[kind] for kind in headline)
    sentences = [f"Top-1 accuracy on the test images from frozen features, the training images {uses}."]
    if "knn" in protocols:
        sentences.append(f"{headline_title('knn', headline)}: {protocols['knn'].in_words()}.")
    if "probe" in protocols:
        p = protocols["probe"]
        sentences.append(
            f"Probe: layer norm and a linear layer, {p.optimizer}, learning rate {p.learning_rate:g}, weight decay "
            f"{p.weight_decay:g}, batch {p.batch_size}, {p.epochs} epochs."
        )
    return " ".join(sentences)


def headline_title(kind: str, headline: Mapping[str, str]) -> str:
    """The name of a headline accuracy, "knn" or "probe", in tables and figures."""
    return "Linear probe" if kind == "probe" else f"kNN@{keys.parse(headline['knn']).protocol.k}"
