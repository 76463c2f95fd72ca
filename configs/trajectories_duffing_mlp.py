# Clips of a Duffing oscillator with an MLP in place of the Hamiltonian flow, on CPU.
#   python -m hamjepa_jax.main --config=configs/trajectories_duffing_mlp.py --workdir=runs/duffing_mlp
#   Measured: docs/results/trajectories_duffing.json. Arguments: epochs=20, friction=0.1.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    return shipped("trajectories", arg, system="duffing", predictor="mlp")
