"""Refusals of features and labels that would give a number without a meaning."""

import jax
import jax.numpy as jnp
import numpy as np

Features = np.ndarray | jax.Array


def _all_finite(x: Features) -> bool:
    if isinstance(x, jax.Array):
        return bool(jnp.isfinite(x).all())
    return bool(np.isfinite(x).all())


def check_features(name: str, x: Features) -> Features:
    """Returns `x`, a JAX array as it is and anything else as a NumPy array, if it is a usable feature matrix.

    Args:
      name: what the caller's argument is called, for the message.
      x: [n, d] finite numbers, n ≥ 1 and d ≥ 1.

    Raises:
      ValueError: if `x` is no matrix, is empty, or holds NaN or infinity.
    """
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"{name} must be a matrix of features [n, d], got shape {x.shape}.")
    if 0 in x.shape:
        raise ValueError(f"{name} is empty: shape {x.shape}; at least one example and one feature are needed.")
    if not _all_finite(x):
        raise ValueError(f"{name} {x.shape} holds NaN or infinite features; the encoder that made them diverged.")
    return x


def check_labelled(
    train_x: Features, train_y: Features, test_x: Features, test_y: Features, num_classes: int
) -> tuple[Features, np.ndarray, Features, np.ndarray]:
    """Returns the four arrays, labels as int32 NumPy arrays, if they make one classification problem.

    Args:
      train_x: [n, d] features; `train_y`: [n] integer labels in [0, num_classes).
      test_x: [m, d] features; `test_y`: [m] labels likewise.
      num_classes: number of classes.

    Raises:
      ValueError: if features are unusable (see `check_features`), shapes disagree, or a label is out of range.
    """
    train_x, test_x = check_features("train_x", train_x), check_features("test_x", test_x)
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(
            f"train_x {train_x.shape} and test_x {test_x.shape} have different numbers of features per example."
        )
    return (
        train_x,
        _check_labels("train", train_x, train_y, num_classes),
        test_x,
        _check_labels("test", test_x, test_y, num_classes),
    )


def _check_labels(part: str, x: Features, y: Features, num_classes: int) -> np.ndarray:
    y = np.asarray(y)
    if y.shape != (x.shape[0],):
        raise ValueError(f"{part}_y has shape {y.shape}; one label for each row of {part}_x {x.shape} is expected.")
    if not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"{part}_y must hold integer class indices, got dtype {y.dtype}.")
    if y.min() < 0 or y.max() >= num_classes:
        raise ValueError(
            f"{part}_y holds labels from {y.min()} to {y.max()}; num_classes={num_classes} allows 0 to "
            f"{num_classes - 1}."
        )
    return y.astype(np.int32)
