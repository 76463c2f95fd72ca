# Clips of a mass on a spring, HamJEPA, on CPU.
#   python -m hamjepa_jax.main --config=configs/trajectories_spring.py --workdir=runs/spring
#   Measured: docs/results/trajectories_spring.json. Arguments: epochs=20, friction=0.1.
from hamjepa_jax.config import shipped


def get_config(arg=None):
    return shipped("trajectories", arg, system="spring")
