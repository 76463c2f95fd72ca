# CIFAR-100, MCR² with every image as a class under the same encoder, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_mcr2.py --workdir=runs/cifar100_mcr2
#   ε² = 0.5 is the paper's; the projector (512, 128) is ours. The total coding rate with the cosine:
#   --config.objective.mcr2.compression=cosine --config.objective.mcr2.compression_weight=200.
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "mcr2"
    config.encoder.projector = "mlp"
    config.encoder.projector_layers = 2
    config.encoder.projector_hidden = 512
    config.encoder.projector_dim = 128
    return config
