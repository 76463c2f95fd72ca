# CIFAR-100, the MLP-predictor ablation: HamJEPA's encoder, losses and schedule with an unstructured predictor.
#   python -m hamjepa_jax.main --config=configs/cifar100_mlp.py --workdir=runs/cifar100_mlp
#   Measured on one GPU: docs/results/cifar100_30.json. Paper, 80 epochs: q kNN@20 28.10, probe 42.26.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100", arg)
    config.predictor.kind = "mlp"
    return config
