"""Self-distillation held up by the coding rate (SimDINO: Wu et al., 2025, arXiv 2502.10385)."""

from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import parts
from hamjepa_jax.objectives.coding_rate import coding_rate
from hamjepa_jax.objectives.objective import (
    Context,
    Objective,
    Seen,
    Wide,
    as_one_batch,
    scale_diagnostics,
    unit_length,
)
from hamjepa_jax.objectives.teachers import target_pairs, teacher, teacher_settings
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array

SETTINGS = teacher_settings(0.996, "DINO's") | settings(
    rate_weight=field(1.0, "Weight γ of the coding rate (ours; see also rate_scale).", least=0),
    rate_scale=field(
        "balanced",
        'Factor on γ: "balanced", ε·√(n/(d·min(d, n))), by which the gradient of the rate keeps its size for other '
        'batches n and dimensions d; "none", 1.',
        choices=("balanced", "none"),
    ),
    eps=field(0.5, "Distortion ε of the coding rate, of unit vectors (ours).", above=0, most=100),
)


@parts.objectives.register(
    "simdino",
    SETTINGS,
    title="SimDINO",
    shown=("pred", "rate", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
    least_images=2,
)
def simdino(context: Context, s: Values) -> Objective:
    """½·‖z − z'‖² of unit vectors, every view against the teacher's other global views, minus γ·R(Cov z).

    R(Γ) = ½·logdet(I + d/ε²·Γ) of the covariance Γ of each view over the batch, averaged over the views. The mean
    of Γ is taken out, and its sum divided by n. Published code differs: it takes the global views alone, leaves the
    mean in, multiplies the rate by (d + n)/(d·n), and has ε² = 0.5 by default, 0.05 in its command for a ViT-B.
    """
    del context

    def loss(params: Any, seen: Seen, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array], Any]:
        del params, draw, epoch
        x, targets = (unit_length(z.astype(jnp.float32)) for z in (seen.z, seen.teacher.z))
        targets = jax.lax.stop_gradient(targets)
        pairs = target_pairs(x, targets)
        error = sum(0.5 * jnp.square(x[i] - targets[j]).sum(axis=-1).mean() for i, j in pairs) / len(pairs)
        centred = x - x.mean(axis=1, keepdims=True)
        rate = coding_rate(centred, eps=s.eps)[0].mean()
        total = error - _weight(s, *x.shape[1:]) * rate
        metrics = {"total": total, "pred": error, "rate": rate}
        return total, metrics | scale_diagnostics(as_one_batch(seen.z), "z"), ()

    return Objective(lambda count: (), 1, loss, wide=Wide(teacher(s)))


def _weight(s: Values, n: int, d: int) -> float:
    return s.rate_weight * (s.eps * (n / (d * min(d, n))) ** 0.5 if s.rate_scale == "balanced" else 1.0)
