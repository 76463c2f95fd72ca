# CIFAR-100, KerJEPA: LeJEPA with a kernel discrepancy for SIGReg, under the same headless encoder, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_kerjepa.py --workdir=runs/cifar100_kerjepa
#   The squared MMD along all directions in closed form, of a Gaussian kernel; its width and weight are ours.
#   The kernel Stein discrepancy: --config.objective.kerjepa.discrepancy=ksd --config.objective.kerjepa.slicing=none
#   --config.objective.kerjepa.kernel=imq.
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "kerjepa"
    return config
