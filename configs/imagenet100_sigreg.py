# ImageNet-100, the isotropic baseline: LeJEPA prediction with SIGReg under the same headless encoder, 45 epochs.
#   python -m hamjepa_jax.main --config=configs/imagenet100_sigreg.py:source=folder:DIR --workdir=DIR
#   The state is split, so that q, p and (q,p) can be read out.
#   Hardware, wall time, accuracy: not measured. Paper: kNN@20 20.94, probe 25.54.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("imagenet100", arg)
    config.objective.name = "lejepa"
    config.predictor.kind = "identity"
    config.optimizer.clip_norm = None
    return config
