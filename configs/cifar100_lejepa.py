# CIFAR-100, LeJEPA in its paper's form: (1 − λ)·L_pred + λ·SIGReg after a projector of three layers, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_lejepa.py --workdir=runs/cifar100_lejepa
#   λ = 0.05, 1024 directions and 17 points on [−5, 5] (here 9 on [0, 5]) are LeJEPA's; 2048 hidden units we take
#   for its value, but did not compare it with its text; the output size 64 is ours. cifar100_sigreg is the
#   headless baseline of the HamJEPA paper.
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    objective = config.objective.lejepa
    objective.weighting, objective.sigreg_weight = "convex", 0.05
    objective.num_points, objective.t_max, objective.num_directions = 9, 5.0, 1024
    config.encoder.projector = "mlp"
    config.encoder.projector_layers = 3
    config.encoder.projector_hidden = 2048
    config.encoder.projector_dim = 64
    return config
