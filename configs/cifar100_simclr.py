# CIFAR-100, SimCLR (NT-Xent, which is CPC's InfoNCE) under the same encoder, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_simclr.py --workdir=runs/cifar100_simclr
#   Temperature and projector (2048, 128) are SimCLR's; encoder, views, optimiser and schedule are those of the
#   siblings.
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "simclr"
    config.encoder.projector = "mlp"
    config.encoder.projector_layers = 2
    config.encoder.projector_hidden = 2048
    config.encoder.projector_dim = 128
    return config
