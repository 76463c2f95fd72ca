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
    matched: whether all methods must have one encoder, data, schedule and evaluation; a method may then also be a
      config by name or file, one with plugins of its own included.
    clips: whether the data are clips, to whose states and time step the recipes are fitted, and what the runs know
      of these is measured too.
    """

    title: str
    kind: str
    recipes: dict[str, Recipe]
    matched: bool = False
    clips: bool = False


def _cifar100(title: str, changes: dict[str, Any], of_hamjepa: dict[str, Any] | None = None) -> PaperTable:
    files = {"hamjepa": "cifar100.py", "mlp": "cifar100_mlp.py", "sigreg": "cifar100_sigreg.py"}
    recipes = {method: Recipe(file, changes) for method, file in files.items()}
    return PaperTable(
        title, "cifar100", recipes | {"hamjepa": Recipe(files["hamjepa"], changes | (of_hamjepa or {}))}
    )


# CIFAR-100 on a CPU in minutes, meant for cifar100:?train=10000. One token: in a grid, after so few steps, most of
# the energy is in each position's average (see configs/quickstart.py).
SMALL = {
    "encoder.stem": "imagenet",
    "encoder.width": 16,
    "encoder.token_hw": 1,
    "encoder.token_dim": 128,
    "predictor.residual_warmup_epochs": 1,
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup": "5%",
    "train.epochs": 4,
    "train.batch_size": 128,
    "evaluate.every": "",
}
_SHAPES = {"evaluate.references": ()}
_ISOTROPIC = {
    "objective.name": "lejepa",
    "encoder.split_qp": False,
    "predictor.kind": "identity",
    "optimizer.clip_norm": None,
    "checkpoint.best_metric": "z/knn_top1_k20_cosine_majority",
}
MATCHED = (
    "sigreg", "lejepa", "vicreg", "kerjepa", "simclr", "alignment_uniformity", "barlow_twins", "byol", "simdino",
    "mcr2",
)  # fmt: skip
_CONTROLS = {
    "mlp": {"predictor.kind": "mlp"},
    "general": {"predictor.energy": "general"},
    "euler": {"predictor.method": "euler"},
    "identity": {"predictor.kind": "identity"},
}
TABLES = {
    "cifar100_30": _cifar100("CIFAR-100, 30 epochs", {"train.epochs": 30}),
    "cifar100_80": _cifar100("CIFAR-100, 80 epochs", {"train.epochs": 80}),
    "cifar100_small": _cifar100(
        "CIFAR-100, reduced for CPUs", SMALL, {"evaluate.references": ("untrained", "pixels")}
    ),
    "matched": PaperTable(
        "CIFAR-100, every method under one protocol, 30 epochs",
        "cifar100",
        {"hamjepa": Recipe("cifar100.py", {}), "mlp": Recipe("cifar100_mlp.py", {})}
        | {method: Recipe(f"cifar100_{method}.py", {}) for method in MATCHED},
        matched=True,
    ),
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
    "trajectories": PaperTable(
        "Clips of systems whose states are known",
        "trajectories",
        {method: Recipe("trajectories.py", changes) for method, changes in ({"hamjepa": {}} | _CONTROLS).items()},
        clips=True,
    ),
}
