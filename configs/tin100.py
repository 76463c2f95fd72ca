# 100 classes of 32-pixel photographs in an arrays file, by the CIFAR-100 recipe.
#   python -m hamjepa_jax.main --config=configs/tin100.py:source=arrays:tin100.npz --workdir=runs/tin100
#   The file holds train_images, train_labels, test_images, test_labels and class_names (uint8 NHWC).
#   method=hamjepa | mlp | sigreg picks the method, epochs=N the length.
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import parse_arg, shipped
from hamjepa_jax.errors import UserError

RECIPES = {"hamjepa": "cifar100", "mlp": "cifar100_mlp", "sigreg": "cifar100_sigreg"}


def get_config(arg=None):
    arg = parse_arg(arg, source="arrays:tin100.npz", method="hamjepa", epochs=30)
    if arg.method not in RECIPES:
        raise UserError(f"config argument 'method={arg.method}': must be one of {', '.join(RECIPES)}.")
    config = shipped(RECIPES[arg.method], f"source={arg.source},epochs={arg.epochs}")
    config.data.mean = (0.4762, 0.4477, 0.3928)
    config.data.std = (0.2544, 0.2452, 0.2566)
    return config
