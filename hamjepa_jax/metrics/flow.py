"""Structure of the learned flow of phase space at held-out states: flow/….

flow/mean_abs_log_abs_det        mean of |log|det J|| in nats, J the Jacobian of the flow at a state
flow/max_symplectic_defect       largest ‖JᵀΩJ − Ω‖_F
flow/median_reversal_error       median of ‖flow(flow(z, +1), −1) − z‖/‖z‖
flow/median_energy_drift_x50     median of |H_50 − H_0|/|H_0|, the flow applied 50 times; only if there is an H
"""

import numpy as np

from hamjepa_jax.metrics.contract import FLOW_TABLE, Column, FlowStates
from hamjepa_jax.metrics.keys import Applications, Key
from hamjepa_jax.parts import metrics

TITLES = {
    "mean_abs_log_abs_det": "mean |log|det J||",
    "max_symplectic_defect": "largest ‖JᵀΩJ − Ω‖",
    "median_reversal_error": "median reversal error",
    "median_energy_drift": "median energy drift",
}
COLUMNS = [Column(title, name, tables=(FLOW_TABLE,), digits=1, scientific=True) for name, title in TITLES.items()]


def _keys(x: FlowStates) -> list[Key | str]:
    structure = ["mean_abs_log_abs_det", "max_symplectic_defect", "median_reversal_error"]
    return structure + [_drift_key(x)] * x.has_energy


def _drift_key(x: FlowStates) -> Key:
    return Key("median_energy_drift", Applications(len(x.measured["energy_drift"]) - 1))


@metrics.register("flow", keys=_keys, columns=COLUMNS, of="flow", place=0)
def flow(x: FlowStates) -> dict[Key | str, float]:
    """How nearly the flow is symplectic, preserves volume, returns when reversed, and keeps its energy."""
    found = {
        "mean_abs_log_abs_det": np.abs(x.measured["log_abs_det"]).mean(),
        "max_symplectic_defect": x.measured["symplectic_defect"].max(),
        "median_reversal_error": np.median(x.measured["reversal_error"]),
    }
    if x.has_energy:
        found[_drift_key(x)] = np.median(np.abs(x.measured["energy_drift"][-1]))
    return found
