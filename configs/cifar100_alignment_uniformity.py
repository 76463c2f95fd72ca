# CIFAR-100, alignment and uniformity on the sphere under the same headless encoder, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_alignment_uniformity.py --workdir=DIR
#   α = t = 2 are the paper's; the weights 1 and 1 are ours.
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "alignment_uniformity"
    return config
