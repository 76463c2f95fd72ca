# CIFAR-100, LeJEPA with HamSIGReg in the geometry of coupled neighbouring tokens (periodic chains), 30 epochs.
#   python -m hamjepa_jax.main --config=configs/cifar100_hamsigreg_chain.py --workdir=DIR
#   --config.objective.hamsigreg.chain.mode=1d takes neighbours along the flattened embedding instead.
#   κ, ε and β are ours; the published settings are not stated.
#   Hardware, wall time, accuracy: not measured. The paper prints no number.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    config = shipped("cifar100_sigreg", arg)
    config.objective.name = "hamsigreg"
    config.objective.hamsigreg.kind = "chain"
    return config
