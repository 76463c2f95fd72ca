# ImageNet-100, the isotropic baseline: LeJEPA prediction with SIGReg under the same headless encoder, 45 epochs.
#   python -m hamjepa_jax.main --config=configs/imagenet100_sigreg.py:source=folder:DIR --workdir=DIR
#   The state is split, so that q, p and (q,p) can be read out.
#   Hardware, wall time, accuracy: not measured. Paper: kNN@20 20.94, probe 25.54.
from configs import imagenet100


def get_config(arg=None):
    config = imagenet100.get_config(arg)
    config.objective.name = "lejepa"
    config.predictor.kind = "identity"
    config.optimizer.clip_norm = None
    return config
