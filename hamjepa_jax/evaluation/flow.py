"""The structure of a learned flow of phase space at held-out states, as a flat dictionary.

flow/mean_abs_log_abs_det        mean of |log|det J|| in nats, J the Jacobian of the flow at a state
flow/max_symplectic_defect       largest ‖JᵀΩJ − Ω‖_F
flow/median_reversal_error       median of ‖flow(flow(z, +1), −1) − z‖/‖z‖
flow/median_energy_drift_x50     median of |H_50 − H_0|/|H_0|, the flow applied 50 times; only if there is an H
"""

from collections.abc import Mapping

import numpy as np


def flow_metrics(measured: Mapping[str, np.ndarray], *, has_energy: bool) -> dict[str, float]:
    """Summaries of what was measured at single states; the keys are explained at the top of this module.

    Args:
      measured: "log_abs_det" [m], "symplectic_defect" [m], "reversal_error" [n] and "energy_drift" [k + 1, n] of k
        applications, as `physics.learned_flow_measurements` gives them.
      has_energy: whether the drift means anything.
    """
    drift = np.abs(measured["energy_drift"])
    found = {
        "mean_abs_log_abs_det": np.abs(measured["log_abs_det"]).mean(),
        "max_symplectic_defect": measured["symplectic_defect"].max(),
        "median_reversal_error": np.median(measured["reversal_error"]),
    }
    if has_energy:
        found[f"median_energy_drift_x{len(drift) - 1}"] = np.median(drift[-1])
    return {f"flow/{key}": float(value) for key, value in found.items()}
