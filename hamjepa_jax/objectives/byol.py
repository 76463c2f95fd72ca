"""Prediction of a teacher's embedding of another view, without negatives (BYOL: Grill et al., 2020)."""

from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import parts
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
GROUP = "byol"

SETTINGS = teacher_settings(0.996, "0.996 is BYOL's for 1000 epochs, 0.99 its for 300") | settings(
    predictor_hidden=field(4096, "Hidden width of the prediction network.", least=1, most=2**15),
    predictor_layers=field(2, "Linear layers of the prediction network.", least=1, most=16),
    predictor_norm=field(
        "batch", "Normalisation after each of its hidden layers.", choices=("batch", "layer", "none")
    ),
)


@parts.objectives.register(
    "byol",
    SETTINGS,
    title="BYOL",
    shown=("pred", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
)
def byol(context: Context, s: Values) -> Objective:
    """‖q̄(z) − z̄'‖² of every view and the teacher's other global views (BYOL, eq. 2), twice its mean.

    Twice: of two views that is the paper's sum of both directions. z' is the teacher's embedding, q a network of
    the objective's own, the bar a division by the length. The network's running batch statistics are carried along.
    """
    network = context.network(
        features=context.embed_dim,
        hidden=s.predictor_hidden,
        layers=s.predictor_layers,
        norm=s.predictor_norm,
        name=GROUP,
    )

    def init(key: Array) -> Any:
        return network.init(key, context.embed_dim)[0]

    def carried(key: Array) -> Any:
        return network.init(key, context.embed_dim)[1]

    def loss(params: Any, seen: Seen, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array], Any]:
        del draw, epoch
        v, b, k = seen.z.shape
        predicted, stats = network.apply(params, seen.carried, as_one_batch(seen.z))
        predicted = predicted.reshape(b, v, k).swapaxes(0, 1)
        error = byol_loss(predicted, seen.teacher.z)
        metrics = {"total": error, "pred": error}
        return error, metrics | scale_diagnostics(as_one_batch(seen.z), "z"), stats

    return Objective(lambda count: (), 1, loss, reads=GROUP, init=init, wide=Wide(teacher(s), carried))


def byol_loss(predicted: Array, targets: Array) -> Array:
    """Twice the mean of 2 − 2·cos(predicted_i, target_j) over i ≠ j and the batch (eq. 2).

    Args:
      predicted: [v, b, k], global views first.
      targets: [g, b, k], of the g ≤ v global views; a constant.

    Raises:
      ValueError: if the shapes do not fit.
    """
    if predicted.shape[1:] != targets.shape[1:] or predicted.ndim != 3 or targets.shape[0] > predicted.shape[0]:
        raise ValueError(f"expected [v, b, k] and targets [g, b, k], got {predicted.shape} and {targets.shape}.")
    targets = jax.lax.stop_gradient(unit_length(targets.astype(jnp.float32)))
    predicted = unit_length(predicted.astype(jnp.float32))
    pairs = target_pairs(predicted, targets)
    errors = [2 - 2 * (predicted[i] * targets[j]).sum(axis=-1).mean() for i, j in pairs]
    return 2 * sum(errors) / len(errors)
