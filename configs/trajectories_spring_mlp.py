# Clips of a mass on a spring with an MLP in place of the Hamiltonian flow, on CPU.
#   python -m hamjepa_jax.main --config=configs/trajectories_spring_mlp.py --workdir=runs/spring_mlp
#   Measured: docs/results/trajectories_spring.json. Arguments: epochs=20, friction=0.1.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    return shipped("trajectories", arg, system="spring", predictor="mlp")
