# CIFAR-100, masked prediction of tokens in the manner of I-JEPA: a ViT-Ti of 4×4 patches, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_i_jepa.py --workdir=runs/cifar100_i_jepa
#   Four hidden blocks, their share of the tokens, the momentum and its course are I-JEPA's; trunk, token layer and
#   the narrow prediction network are ours, and the two augmented views, of which each is predicted from its own
#   visible tokens, are those of the siblings. --config.evaluate.teacher=True evaluates the teacher. Without one,
#   with SIGReg:
#   --config.objective.i_jepa.targets=encoder --config.objective.i_jepa.sigreg_weight=0.05
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.encoder.trunk = "vit_tiny"
    config.encoder.vit.patch, config.encoder.vit.image_size, config.encoder.vit.class_token = 4, 32, False
    config.encoder.token_dim, config.encoder.token_norm = 192, "layer"
    config.objective.name, config.objective.i_jepa.momentum_schedule = "i_jepa", "linear"
    config.objective.i_jepa.predictor_dim, config.objective.i_jepa.predictor_heads = 96, 3
    return config
