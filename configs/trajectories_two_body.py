# Clips of two bodies around each other, HamJEPA, on CPU.
#   python -m hamjepa_jax.main --config=configs/trajectories_two_body.py --workdir=runs/two_body
#   Measured: docs/results/trajectories_two_body.json. Arguments: epochs=20, friction=0.009 at most.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    return shipped("trajectories", arg, system="two_body")
