# Clips of a body in a double well with an MLP in place of the Hamiltonian flow, on CPU.
#   python -m hamjepa_jax.main --config=configs/trajectories_double_well_mlp.py --workdir=runs/double_well_mlp
#   Measured: docs/results/trajectories_double_well.json. Arguments: epochs=20, friction=0.1.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    return shipped("trajectories", arg, system="double_well", predictor="mlp")
