"""Linear probe on frozen features: LayerNorm and a linear layer, trained as one compiled program."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hamjepa_jax.evaluation.checks import Features, check_labelled
from hamjepa_jax.evaluation.classifier import initial, logits, standardise
from hamjepa_jax.evaluation.ranking import label_rank
from hamjepa_jax.rng import stream

Array = jax.Array


def linear_probe(
    train_x: Features,
    train_y: Features,
    test_x: Features,
    test_y: Features,
    *,
    num_classes: int,
    epochs: int = 50,
    batch_size: int = 256,
    learning_rate: float | Sequence[float] = 1e-3,
    weight_decay: float = 1e-6,
    seed: int = 0,
) -> dict:
    """Test accuracy of a linear classifier on frozen features (the protocol of the paper's probe).

    LayerNorm with learned scale and bias (ε 1e-5), then a linear layer that starts uniform in ±1/√d;
    cross-entropy; AdamW (β 0.9, 0.999, ε 1e-8, decoupled weight decay on every parameter); the learning rate falls
    by a cosine from its full value at the first step to 0 after the last, without warm-up. Examples are shuffled
    anew in every epoch, and the last, smaller batch of an epoch is used. Everything in float32; reported is the
    classifier after the last step, never the best epoch.

    Args:
      train_x: [n, d] features, NumPy or JAX.
      train_y: [n] integer labels in [0, num_classes).
      test_x: [m, d] features.
      test_y: [m] labels.
      num_classes: number of classes.
      epochs: passes over the training features.
      batch_size: examples per step.
      learning_rate: at the first step. Several rates are trained at once, from one initialisation and one order of
        examples, and each is reported; no test label chooses among them.
      weight_decay: decoupled, multiplied by the learning rate in force.
      seed: of the initialisation and the order of examples.

    Returns:
      {"top1", "top5"} in [0, 1]. Several rates add {"by_learning_rate": {rate: {"top1", "top5"}}}, and "top1" and
      "top5" are then those of the first rate given.

    Raises:
      ValueError: if shapes or label ranges disagree, features are not finite, or a setting is not positive.
    """
    train_x, train_y, test_x, test_y = check_labelled(train_x, train_y, test_x, test_y, num_classes)
    several = np.ndim(learning_rate) > 0
    rates = [float(r) for r in learning_rate] if several else [float(learning_rate)]
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}.")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be finite and not negative, got {weight_decay}.")
    if not all(isinstance(n, int | np.integer) and n >= 1 for n in (epochs, batch_size)):
        raise ValueError(f"epochs and batch_size must be positive whole numbers, got {epochs} and {batch_size}.")

    batch_size = min(batch_size, max(train_x.shape[0], test_x.shape[0]))  # More would only be padding.
    scores = _train_and_count(
        train_x,
        train_y,
        test_x,
        test_y,
        jnp.asarray(rates, jnp.float32),
        weight_decay,
        seed,
        num_classes=num_classes,
        epochs=epochs,
        batch_size=batch_size,
    )
    m = test_x.shape[0]
    results = [{"top1": int(top1) / m, "top5": int(top5) / m} for top1, top5 in np.asarray(scores)]
    if not several:
        return results[0]
    return {**results[0], "by_learning_rate": dict(zip(rates, results, strict=True))}


@functools.partial(jax.jit, static_argnames=("num_classes", "epochs", "batch_size"))
def _train_and_count(
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    rates: Array,
    weight_decay: float,
    seed: int,
    *,
    num_classes: int,
    epochs: int,
    batch_size: int,
) -> Array:
    """Numbers of right test answers [rates, 2], top-1 and top-5, after training with each rate."""
    train_x, test_x = standardise(train_x), standardise(test_x)  # Once: the features never change.
    steps_per_epoch = -(-train_x.shape[0] // batch_size)

    def train_with(rate):
        return _train(
            initial(stream(seed, "probe.init"), train_x.shape[1], num_classes),
            optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(weight_decay)),
            optax.cosine_decay_schedule(rate, epochs * steps_per_epoch),
            train_x,
            train_y,
            seed=seed,
            epochs=epochs,
            batch_size=batch_size,
        )

    return jax.vmap(lambda rate: _count_hits(train_with(rate), test_x, test_y, batch_size))(rates)


def _train(
    params: dict[str, Array],
    direction: optax.GradientTransformation,
    schedule: optax.Schedule,
    x: Array,
    y: Array,
    *,
    seed: int,
    epochs: int,
    batch_size: int,
) -> dict[str, Array]:
    """Parameters after all epochs; `direction` gives the step before it is scaled by −schedule(step)."""

    def run_step(carry, batch):
        params, state, step = carry
        rows, valid = batch
        gradient = jax.grad(_loss)(params, x[rows], y[rows], valid)
        update, state = direction.update(gradient, state, params)
        params = jax.tree.map(lambda p, u: p - schedule(step) * u, params, update)
        return (params, state, step + 1), None

    def run_epoch(carry, epoch):
        order = jax.random.permutation(stream(seed, "probe.order", epoch), x.shape[0])
        return jax.lax.scan(run_step, carry, _batches(order, batch_size))[0], None

    start = params, direction.init(params), jnp.int32(0)
    return jax.lax.scan(run_epoch, start, jnp.arange(epochs))[0][0]


def _batches(rows: Array, batch_size: int) -> tuple[Array, Array]:
    """Row numbers [n] cut into [ceil(n / batch_size), batch_size], and which of them are no padding."""
    padding = (0, -rows.shape[0] % batch_size)
    valid = jnp.pad(jnp.ones(rows.shape, jnp.float32), padding)
    return jnp.pad(rows, padding).reshape(-1, batch_size), valid.reshape(-1, batch_size)


def _loss(params: dict[str, Array], x: Array, y: Array, valid: Array) -> Array:
    """Mean cross-entropy over the valid rows of a batch."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), y)
    return jnp.sum(losses * valid) / jnp.sum(valid)


def _count_hits(params: dict[str, Array], x: Array, y: Array, batch_size: int) -> Array:
    """Numbers of right answers [2], top-1 and top-5."""

    def count(hits, batch):
        rows, valid = batch
        rank = label_rank(logits(params, x[rows]), y[rows])
        right = jnp.stack([rank < 1, rank < 5]) & (valid > 0)[None, :]
        return hits + jnp.sum(right, axis=1, dtype=jnp.int32), None

    return jax.lax.scan(count, jnp.zeros((2,), jnp.int32), _batches(jnp.arange(x.shape[0]), batch_size))[0]
