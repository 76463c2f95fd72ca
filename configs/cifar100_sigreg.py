# CIFAR-100, the isotropic baseline: LeJEPA prediction with SIGReg under the same headless encoder, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_sigreg.py --workdir=runs/cifar100_sigreg
#   Measured on one GPU: docs/results/cifar100_30.json. Paper (3 seeds): kNN@20 26.56 ± 0.18, probe 30.43 ± 0.30.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100", arg)
    config.objective.name = "lejepa"
    config.encoder.split_qp = False
    config.predictor.kind = "identity"
    config.optimizer.clip_norm = None
    config.checkpoint.best_metric = "z/knn_top1_k20_cosine_majority"
    return config
