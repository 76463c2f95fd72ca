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


def _cifar100(title: str, changes: dict[str, Any]) -> PaperTable:
    files = {"hamjepa": "cifar100.py", "mlp": "cifar100_mlp.py", "sigreg": "cifar100_sigreg.py"}
    return PaperTable(title, "cifar100", {method: Recipe(file, changes) for method, file in files.items()})


# CIFAR-100 on a CPU, for ?train=10000.
SMALL = {
    "encoder.stem": "imagenet",
    "encoder.width": 32,
    "encoder.token_layer": 2,
    "encoder.token_hw": 1,
    "encoder.token_dim": 128,
    "predictor.residual_warmup_epochs": 1,
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup": "5%",
    "train.epochs": 3,
    "train.batch_size": 128,
    "evaluate.every": "",
    "evaluate.references": ("untrained", "pixels"),
}

TABLES = {
    "cifar100_30": _cifar100("CIFAR-100, 30 epochs", {"train.epochs": 30}),
    "cifar100_80": _cifar100("CIFAR-100, 80 epochs", {"train.epochs": 80}),
    "cifar100_small": _cifar100("CIFAR-100, reduced for CPUs", SMALL),
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
}
