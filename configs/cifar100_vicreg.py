# CIFAR-100, the variance–covariance control: VICReg under the same headless encoder, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_vicreg.py --workdir=runs/cifar100_vicreg
#   The coefficients 25, 25, 1 are those of Bardes et al. (2022). The variance term is summed over the two views, as
#   in their paper; their code takes half of that sum (here: objective.vicreg.variance_weight=12.5).
#   Hardware, wall time, accuracy: not measured. The paper prints no number.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "vicreg"
    return config
