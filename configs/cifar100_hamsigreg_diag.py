# CIFAR-100, LeJEPA with HamSIGReg in a diagonal geometry (eigenvalues linear 1 … 2), 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_hamsigreg_diag.py --workdir=DIR
#   Hardware, wall time, accuracy: not measured. The paper prints no number.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "hamsigreg"
    config.objective.hamsigreg.kind = "diag"
    return config
