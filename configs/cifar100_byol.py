# CIFAR-100, BYOL under the same encoder, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_byol.py --workdir=runs/cifar100_byol
#   Projector and prediction network (4096, 256) are BYOL's, and its momentum 0.99 for short training; encoder,
#   views, optimiser and schedule are those of the siblings. --config.evaluate.teacher=True evaluates the teacher.
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "byol"
    config.objective.byol.momentum = 0.99
    config.encoder.projector = "mlp"
    config.encoder.projector_layers = 2
    config.encoder.projector_hidden = 4096
    config.encoder.projector_dim = 256
    return config
