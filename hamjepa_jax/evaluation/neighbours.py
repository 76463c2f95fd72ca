"""The nearest training examples of a few test examples, to be looked at."""

import numpy as np

from hamjepa_jax.evaluation.checks import Features


def first_of_each_class(labels: np.ndarray, most: int) -> np.ndarray:
    """Row numbers of the first example of each class, for as many of the first classes.

    Args:
      labels: [m] integers.
      most: number of classes.
    """
    return np.unique(labels, return_index=True)[1][:most]


def nearest(bank: Features, queries: Features, count: int) -> np.ndarray:
    """Row numbers [m, count] of the bank's nearest rows by cosine, nearest first; equal ones in the bank's order.

    For few queries: their similarities to the whole bank are held at once.

    Args:
      bank: [n, d] features.
      queries: [m, d].
      count: at most n are returned.

    >>> nearest(np.eye(3), np.asarray([[3.0, 0.0, 1.0]]), 2).tolist()
    [[0, 2]]
    """
    bank, queries = (np.asarray(x, np.float32) for x in (bank, queries))
    lengths = np.linalg.norm(bank, axis=1)
    # A query's own length changes no order; a row of zeros has similarity 0 to everything.
    similarity = queries @ bank.T / np.where(lengths > 0, lengths, 1)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]
