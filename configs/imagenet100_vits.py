# ImageNet-100, HamJEPA on the tokens of a ViT-S/16, two global and six local views, 45 epochs.
#   python -m hamjepa_jax.main --config=configs/imagenet100_vits.py:source=folder:DIR --workdir=runs/vits
#   predictor=mlp and predictor=identity are the controls: the same encoder, losses and schedule with a predictor
#   without structure, or with none. The 14×14 tokens of global and 6×6 of local views are pooled to 8×8 (the bins
#   overlap), so the state has the size of imagenet100's; losses and schedule are imagenet100's too. Weight decay
#   and the norm of the tokens are those usual for transformers. None was tuned.
#   Hardware, wall time, accuracy: not measured.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("imagenet100_resnet50", arg)
    config.encoder.trunk = "vit_small"
    config.encoder.token_norm = "layer"
    config.views.local_size = 96  # Patches of 16 pixels divide it.
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_mask = True
    return config
