# Clips of a Duffing oscillator, HamJEPA, on CPU.
#   python -m hamjepa_jax.main --config=configs/trajectories_duffing.py --workdir=runs/duffing
#   Measured: docs/results/trajectories_duffing.json. Arguments: epochs=20, friction=0.1.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    return shipped("trajectories", arg, system="duffing")
