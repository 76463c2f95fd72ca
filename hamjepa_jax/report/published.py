"""The paper's numbers (arXiv 2605.20107, Tables 1-3) for comparison: top-1 in per cent, ResNet-18."""

from typing import NamedTuple

from hamjepa_jax.metrics import PROBE, keys


class Published(NamedTuple):
    """A published number.

    Attributes:
      mean: in per cent.
      std: over the paper's seeds; None where one run was published.
    """

    mean: float
    std: float | None = None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.std is None else f" ± {self.std:.2f}")


def _rows(rows: dict[tuple[str, str], tuple]) -> dict[tuple[str, str], dict[str, Published]]:
    return {key: {"knn": Published(*knn), "probe": Published(*probe)} for key, (knn, probe) in rows.items()}


# table -> (method, readout) -> {"knn": kNN@20, "probe": linear probe}
PUBLISHED = {
    "cifar100_30": _rows(
        {
            ("sigreg", "z"): ((26.56, 0.18), (30.43, 0.30)),
            ("hamjepa", "q"): ((31.45, 0.27), (33.95, 0.24)),
            ("hamjepa", "p"): ((29.71, 0.25), (33.07, 0.36)),
            ("hamjepa", "qp"): ((30.88, 0.39), (34.18, 0.17)),
        }
    ),
    "cifar100_80": _rows(
        {
            ("sigreg", "z"): ((27.98,), (33.95,)),
            ("hamjepa", "q"): ((34.43,), (44.59,)),
            ("hamjepa", "p"): ((32.96,), (44.44,)),
            ("hamjepa", "qp"): ((33.66,), (44.52,)),
            ("mlp", "q"): ((28.10,), (42.26,)),
            ("mlp", "p"): ((28.30,), (41.90,)),
            ("mlp", "qp"): ((28.15,), (42.77,)),
        }
    ),
    "imagenet100": _rows(
        {
            ("sigreg", "q"): ((20.10,), (24.40,)),
            ("sigreg", "p"): ((18.78,), (23.86,)),
            ("sigreg", "qp"): ((20.94,), (25.54,)),
            ("hamjepa", "q"): ((24.92,), (31.92,)),
            ("hamjepa", "p"): ((24.72,), (32.08,)),
            ("hamjepa", "qp"): ((24.64,), (32.04,)),
        }
    ),
}
# The protocols of the published numbers; numbers of another protocol are not set beside them.
KNN_KEY = str(keys.knn(20))
PROBE_KEY = str(keys.probe(PROBE["learning_rate"], PROBE))
