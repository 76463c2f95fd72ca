"""The two accuracies that tables over runs show, and the protocol they were measured by in words."""

from collections.abc import Mapping

from hamjepa_jax.report.runs import FinishedRun
from hamjepa_jax.report.tables import describe_knn, knn_protocol, knn_sweep

HEADLINE_K = 20


def headline_keys(run: FinishedRun) -> dict[str, str]:
    """{"knn": key, "probe": key} of the accuracies in the tables, of those that were measured."""
    keys = next(iter(run.readouts().values()))
    found, protocol = {}, knn_protocol(keys)
    if protocol is not None:
        ks = list(knn_sweep(keys, protocol))
        found["knn"] = f"knn_top1_k{HEADLINE_K if HEADLINE_K in ks else max(ks)}_{protocol}"
    probe = next((key for key in keys if key.startswith("probe_top1_")), None)
    return found | ({} if probe is None else {"probe": probe})


def describe_protocol(headline: Mapping[str, str]) -> str:
    parts = []
    if "knn" in headline:
        parts.append(f"{headline_title('knn', headline)}: {describe_knn(headline['knn'].split('_', 3)[3])}.")
    if "probe" in headline:
        optimiser, rate, decay, batch, epochs = headline["probe"].removeprefix("probe_top1_").split("_")[:5]
        parts.append(
            f"Probe: layer norm and a linear layer, {optimiser}, learning rate {rate[2:]}, weight decay "
            f"{decay[2:]}, batch {batch[2:]}, {epochs[2:]} epochs."
        )
    return " ".join(parts)


def headline_title(kind: str, headline: Mapping[str, str]) -> str:
    return "Linear probe" if kind == "probe" else f"kNN@{headline['knn'].split('_')[2][1:]}"
