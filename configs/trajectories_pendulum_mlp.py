# Clips of a pendulum with an MLP in place of the Hamiltonian flow, on CPU.
#   python -m hamjepa_jax.main --config=configs/trajectories_pendulum_mlp.py --workdir=runs/pendulum_mlp
#   Measured: docs/results/trajectories_pendulum.json. Arguments: epochs=20, friction=0.1.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    return shipped("trajectories", arg, system="pendulum", predictor="mlp")
