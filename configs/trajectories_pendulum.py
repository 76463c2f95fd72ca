# Clips of a pendulum, HamJEPA, on CPU.
#   python -m hamjepa_jax.main --config=configs/trajectories_pendulum.py --workdir=runs/pendulum
#   Measured: docs/results/trajectories_pendulum.json. Arguments: epochs=20, friction=0.1.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    return shipped("trajectories", arg, system="pendulum")
