# CIFAR-100, Barlow Twins under the same encoder, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_barlow_twins.py --workdir=runs/cifar100_barlow_twins
#   λ = 5e-3 and three layers of projector are the paper's; their width 2048 is ours (8192 in the paper).
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "barlow_twins"
    config.encoder.projector = "mlp"
    config.encoder.projector_layers = 3
    config.encoder.projector_hidden = 2048
    config.encoder.projector_dim = 2048
    return config
