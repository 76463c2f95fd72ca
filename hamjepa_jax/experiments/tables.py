"""The recipes of the paper's tables and of the quickstart; no JAX here, since the command's --help lists them."""

from typing import Any, NamedTuple


class Recipe(NamedTuple):
    """A method of a table: its config file, and the changes to it."""

    file: str
    changes: dict[str, Any]


class PaperTable(NamedTuple):
    """Attributes:
    title: of the report.
    kind: of the table's own data source.
    recipes: {method: recipe}, each method before those that it is compared with.
    """

    title: str
    kind: str
    recipes: dict[str, Recipe]


def _cifar100(epochs: int) -> PaperTable:
    files = {"hamjepa": "cifar100.py", "mlp": "cifar100_mlp.py", "sigreg": "cifar100_sigreg.py"}
    recipes = {method: Recipe(file, {"train.epochs": epochs}) for method, file in files.items()}
    return PaperTable(f"CIFAR-100, {epochs} epochs", "cifar100", recipes)


_SHAPES = {"evaluate.references": ()}
_ISOTROPIC = {
    "objective.name": "lejepa",
    "encoder.split_qp": False,
    "predictor.kind": "identity",
    "optimizer.clip_norm": None,
    "checkpoint.best_metric": "z/knn_top1_k20_cosine_majority",
}
TABLES = {
    "cifar100_30": _cifar100(30),
    "cifar100_80": _cifar100(80),
    "imagenet100": PaperTable(
        "ImageNet-100, 45 epochs",
        "imagenet100",
        {
            "hamjepa": Recipe("imagenet100.py", {}),
            "mlp": Recipe("imagenet100.py", {"predictor.kind": "mlp"}),
            "sigreg": Recipe("imagenet100_sigreg.py", {}),
        },
    ),
    "quickstart": PaperTable("Quickstart", "shapes", {"hamjepa": Recipe("quickstart.py", {})}),
    "shapes": PaperTable(
        "Shapes by the quickstart's recipe",
        "shapes",
        {
            "hamjepa": Recipe("quickstart.py", _SHAPES),
            "mlp": Recipe("quickstart.py", _SHAPES | {"predictor.kind": "mlp"}),
            "sigreg": Recipe("quickstart.py", _SHAPES | _ISOTROPIC),
        },
    ),
}
