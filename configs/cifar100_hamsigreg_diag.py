# CIFAR-100, LeJEPA with HamSIGReg in a diagonal geometry (eigenvalues linear 1 … 2), 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_hamsigreg_diag.py --workdir=DIR
#   Hardware, wall time, accuracy: not measured. The paper prints no number.
from configs import cifar100_sigreg


def get_config(arg=None):
    config = cifar100_sigreg.get_config(arg)
    config.objective.name = "hamsigreg"
    config.objective.hamsigreg.kind = "diag"
    return config
