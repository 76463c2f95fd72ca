# CIFAR-100, SimDINO (self-distillation held up by the coding rate) under the same encoder, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_simdino.py --workdir=runs/cifar100_simdino
#   The momentum is DINO's; ε, γ's factor 1 and the projector (2048, 2048, 256) are ours.
#   --config.evaluate.teacher=True evaluates the teacher.
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "simdino"
    config.encoder.projector = "mlp"
    config.encoder.projector_layers = 3
    config.encoder.projector_hidden = 2048
    config.encoder.projector_dim = 256
    return config
