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
    shared: what all methods change, if they must have one encoder, data, schedule and evaluation; a method may then
      also be a config by name or file, one with plugins of its own included. None for other tables.
    clips: whether the data are clips, to whose states and time step the recipes are fitted, and what the runs know
      of these is measured too.
    """

    title: str
    kind: str
    recipes: dict[str, Recipe]
    shared: dict[str, Any] | None = None
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
# Drawn shapes on a CPU, a minute for each run, meant for shapes:3000: the quickstart's views, one token, narrow
# hidden layers, a short probe. Mean and deviation are those of these images.
MATCHED_SHAPES = SMALL | {
    "data.mean": (0.4971, 0.4972, 0.4966),
    "data.std": (0.2311, 0.2078, 0.2409),
    "views.global_scale": (0.6, 1.0),
    "views.saturation": 0.4,
    "views.hue": 0.5,
    "views.grayscale_prob": 0.3,
    "views.blur_prob": 0.0,
    "views.solarize_prob": 0.0,
    "encoder.token_layer": 2,
    "encoder.dtype": "float32",
    "encoder.projector_hidden": 512,
    "objective.byol.predictor_hidden": 512,
    "evaluate.probe.epochs": 20,
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
    "sigreg", "lejepa", "hamsigreg_diag", "vicreg", "kerjepa", "simclr", "alignment_uniformity", "barlow_twins",
    "byol", "simdino", "mcr2",
)  # fmt: skip
_CONTROLS = {
    "mlp": {"predictor.kind": "mlp"},
    "general": {"predictor.energy": "general"},
    "euler": {"predictor.method": "euler"},
    "identity": {"predictor.kind": "identity"},
}


def _matched(title: str, kind: str, shared: dict[str, Any], of_hamjepa: dict[str, Any]) -> PaperTable:
    recipes = {"hamjepa": Recipe("cifar100.py", shared | of_hamjepa)}
    recipes |= {method: Recipe(f"cifar100_{method}.py", shared) for method in ("mlp", *MATCHED)}
    return PaperTable(title, kind, recipes, shared)


TABLES = {
    "cifar100_30": _cifar100("CIFAR-100, 30 epochs", {"train.epochs": 30}),
    "cifar100_80": _cifar100("CIFAR-100, 80 epochs", {"train.epochs": 80}),
    "cifar100_small": _cifar100(
        "CIFAR-100, reduced for CPUs", SMALL, {"evaluate.references": ("untrained", "pixels")}
    ),
    "matched": _matched("CIFAR-100, every method under one protocol, 30 epochs", "cifar100", {}, {}),
    "matched_shapes": _matched(
        "Drawn shapes, every method under one protocol",
        "shapes",
        MATCHED_SHAPES,
        {"evaluate.references": ("untrained", "pixels")},
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
