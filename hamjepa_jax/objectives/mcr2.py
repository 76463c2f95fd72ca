"""Maximal coding rate reduction with each image as a class (MCR²: Yu et al., 2020), or the total coding rate."""

from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import parts
from hamjepa_jax.objectives.coding_rate import coding_rate
from hamjepa_jax.objectives.objective import Context, Objective, as_one_batch, scale_diagnostics, unit_length
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array
COMPRESSIONS = ("rate", "cosine")

SETTINGS = settings(
    eps=field(0.7071, "Distortion ε of the coding rates, of unit vectors; ε² = 0.5 is MCR²'s.", above=0, most=100),
    compression=field(
        "rate",
        'How views of an image are drawn together: "rate", the coding rate of the views of each image (MCR²); '
        '"cosine", one minus their mean cosine with their mean (beside the total coding rate, as in EMP-SSL).',
        choices=COMPRESSIONS,
    ),
    compression_weight=field(
        1.0,
        "Weight of the compression; 1 is the objective's. MCR²'s self-supervised runs weigh both rates otherwise, "
        "with 50 views of an image; EMP-SSL has 200 for the cosine, and ε² = 0.2.",
        least=0,
    ),
)


@parts.objectives.register(
    "mcr2",
    SETTINGS,
    title="MCR²",
    shown=("pred", "rate", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
)
def mcr2(context: Context, s: Values) -> Objective:
    """−R(Z) + weight·compression of unit vectors.

    R(Z) is the coding rate of all views of the batch together (MCR², eq. 7); EMP-SSL averages those of each view.
    With "rate", the compression is R^c of eq. 8 with every image a class of its own, Σ_j (n_j/n)·R(Z_j), Z_j the
    n_j views of image j; the loss is then −ΔR.
    """
    del context

    def loss(params: Any, z: Array, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array]]:
        del params, draw, epoch
        x = unit_length(z.astype(jnp.float32))
        rate, _ = coding_rate(as_one_batch(x), eps=s.eps)
        if s.compression == "rate":
            compression = coding_rate(x.swapaxes(0, 1), eps=s.eps)[0].mean()  # Every image has as many views.
        else:
            compression = 1 - (x * unit_length(x.mean(axis=0, keepdims=True))).sum(axis=-1).mean()
        total = s.compression_weight * compression - rate
        metrics = {"total": total, "pred": compression, "rate": rate}
        return total, metrics | scale_diagnostics(as_one_batch(z), "z")

    return Objective(lambda count: (), 1, loss)
