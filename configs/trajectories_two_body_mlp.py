# Clips of two bodies around each other with an MLP in place of the Hamiltonian flow, on CPU.
#   python -m hamjepa_jax.main --config=configs/trajectories_two_body_mlp.py --workdir=runs/two_body_mlp
#   Measured: docs/results/trajectories_two_body.json. Arguments: epochs=20, friction=0.009 at most.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    return shipped("trajectories", arg, system="two_body", predictor="mlp")
