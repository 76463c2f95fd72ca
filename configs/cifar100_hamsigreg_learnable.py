# CIFAR-100, LeJEPA with HamSIGReg in a learned geometry, 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_hamsigreg_learnable.py --workdir=DIR
#   --config.objective.hamsigreg.learnable.adversarial=True makes the spectrum ascend SIGReg.
#   The schedules and the spectrum's learning rate are ours; the published settings are not stated.
#   Hardware, wall time, accuracy: not measured. The paper prints no number.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "hamsigreg"
    config.objective.hamsigreg.kind = "learnable"
    learnable = config.objective.hamsigreg.learnable
    learnable.beta_ramp = 5.0
    learnable.alpha_start, learnable.alpha_ramp = 5.0, 5.0
    return config
