"""The structure of a learned flow of phase space at held-out states, as a flat dictionary.

The keys are explained in `hamjepa_jax.metrics.flow`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hamjepa_jax.metrics import FlowStates, measure


def flow_metrics(
    measured: Mapping[str, np.ndarray], *, has_energy: bool, plugins: Sequence[str] | None = None
) -> dict[str, float]:
    """Every registered metric of the flow.

    Args:
      measured: "log_abs_det" [m], "symplectic_defect" [m], "reversal_error" [n] and "energy_drift" [k + 1, n] of k
        applications, as `physics.learned_flow_measurements` gives them.
      has_energy: whether the drift means anything.
      plugins: as for `evaluate_features`.
    """
    found = measure(FlowStates(measured, has_energy), plugins=plugins)
    return {str(key.of("flow")): value for key, value in found.items()}
