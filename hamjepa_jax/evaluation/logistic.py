"""Logistic regression on frozen features by L-BFGS; its penalty is chosen on held-out training examples."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hamjepa_jax.evaluation.checks import Features, check_labelled
from hamjepa_jax.evaluation.ranking import label_rank
from hamjepa_jax.rng import stream

Array = jax.Array
PENALTIES = tuple(10.0**e for e in range(1, -7, -1))  # λ, from the strongest: each fit begins at the one before.
WITHOUT_CHOICE = 1e-2  # λ where no class has an example to spare.
HELD_OUT = 0.2  # Share of each class that λ is chosen on.
MAX_STEPS, TOLERANCE = 500, 1e-5


class Fit(NamedTuple):
    """Attributes:
    top1, top5: accuracies on the test examples, in [0, 1].
    penalty: the λ that was chosen.
    """

    top1: float
    top5: float
    penalty: float


def logistic_regression(
    train_x: Features,
    train_y: Features,
    test_x: Features,
    test_y: Features,
    *,
    num_classes: int,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
) -> Fit:
    """Mean cross-entropy plus λ/2 ‖W‖² of a linear layer with bias on standardised features, minimised to rounding.

    λ is that with the most right answers among held-out training examples, a fifth of each class, at least one of
    each that has two; of equal ones the strongest. Then all training examples are fitted with it. No test label has
    a part in the choice. Where no class has two examples, λ is 0.01.

    Args:
      train_x: [n, d] features.
      train_y: [n] integer labels in [0, num_classes).
      test_x: [m, d] features.
      test_y: [m] labels.
      num_classes: number of classes.
      seed: of the held-out examples.
      penalties: λs to choose from.

    Raises:
      ValueError: if shapes or label ranges disagree, features are not finite, or a λ is not positive.
    """
    train_x, train_y, test_x, test_y = check_labelled(train_x, train_y, test_x, test_y, num_classes)
    if not penalties or min(penalties) <= 0:
        raise ValueError(f"penalties must be one or more positive numbers, got {penalties}.")
    mean, std = (np.asarray(f(np.asarray(train_x, np.float64), axis=0), np.float32) for f in (np.mean, np.std))
    scaled = [
        jnp.asarray((np.asarray(x, np.float32) - mean) / np.where(std > 0, std, 1)) for x in (train_x, test_x)
    ]
    train_x, test_x = scaled
    held_out, penalty = held_out_rows(train_y, seed=seed), WITHOUT_CHOICE
    if held_out.any():
        penalty = _chosen(train_x, train_y, held_out, sorted(penalties, reverse=True), num_classes)
    everything = jnp.ones(len(train_y), jnp.float32)
    weights = fit(train_x, train_y, everything, penalty, _zeros(train_x.shape[1], num_classes))
    rank = np.asarray(label_rank(_scores(weights, test_x), jnp.asarray(test_y)))
    return Fit(float(np.mean(rank < 1)), float(np.mean(rank < 5)), penalty)


def held_out_rows(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """[n] bool: a fifth of each class, drawn by the seed; at least one of two, none of one."""
    order = np.asarray(jax.random.permutation(stream(seed, "logistic.held_out"), len(labels)))
    chosen = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        rows = order[labels[order] == c]
        chosen[rows[: max(1, round(HELD_OUT * len(rows))) if len(rows) > 1 else 0]] = True
    return chosen


@jax.jit
def fit(
    x: Array, y: Array, counted: Array, penalty: Array | float, start: tuple[Array, Array]
) -> tuple[Array, Array]:
    """(W [d, c], b [c]) of the examples with `counted` 1; those with 0 have no part.

    Ends when the gradient's norm is below 1e-5, or after 500 steps.
    """

    def loss(weights: tuple[Array, Array]) -> Array:
        entropy = optax.softmax_cross_entropy_with_integer_labels(_scores(weights, x), y)
        return jnp.sum(counted * entropy) / jnp.sum(counted) + penalty / 2 * jnp.sum(weights[0] ** 2)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry):
        weights, state, _, number = carry
        value, grad = value_and_grad(weights, state=state)
        updates, state = solver.update(grad, state, weights, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(weights, updates), state, optax.tree.norm(grad), number + 1

    def goes_on(carry):
        return (carry[3] < MAX_STEPS) & (carry[2] > TOLERANCE)

    begin = (start, solver.init(start), jnp.float32(jnp.inf), jnp.int32(0))
    return jax.lax.while_loop(goes_on, step, begin)[0]


def _chosen(x: Array, y: np.ndarray, held_out: np.ndarray, penalties: Sequence[float], num_classes: int) -> float:
    weights, best, most = _zeros(x.shape[1], num_classes), penalties[0], -1
    counted, labels = jnp.asarray(~held_out, jnp.float32), jnp.asarray(y)
    for penalty in penalties:
        weights = fit(x, labels, counted, penalty, weights)
        right = int(_right(weights, x, labels, jnp.asarray(held_out)))
        if right > most:
            best, most = penalty, right
    return best


@jax.jit
def _right(weights: tuple[Array, Array], x: Array, y: Array, counted: Array) -> Array:
    return jnp.sum((label_rank(_scores(weights, x), y) < 1) & counted)


def _scores(weights: tuple[Array, Array], x: Array) -> Array:
    return jnp.matmul(x, weights[0], precision=jax.lax.Precision.HIGHEST) + weights[1][None, :]


def _zeros(d: int, num_classes: int) -> tuple[Array, Array]:
    return jnp.zeros((d, num_classes), jnp.float32), jnp.zeros(num_classes, jnp.float32)
