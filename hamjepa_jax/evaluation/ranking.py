"""The place of the true class among scored classes: top-k accuracy without sorting."""

import jax
import jax.numpy as jnp

Array = jax.Array


def label_rank(scores: Array, labels: Array) -> Array:
    """How many classes are placed before the true one; equal scores go to the smaller class index.

    An example is right in the top k exactly if its rank is below k. A score that is NaN comes after any number of
    classes, so a diverged classifier counts as wrong, never as right.

    Args:
      scores: [b, c] scores (logits, votes), larger is better.
      labels: [b] true classes in [0, c).

    Returns:
      [b] int32 ranks in [0, c); 2³¹ − 1 of a score that is NaN.
    """
    classes = jnp.arange(scores.shape[1], dtype=jnp.int32)[None, :]
    own = jnp.take_along_axis(scores, labels[:, None], axis=1)
    after = (scores < own) | ((scores == own) & (classes >= labels[:, None]))
    rank = jnp.sum(~after, axis=1, dtype=jnp.int32)
    return jnp.where(jnp.isnan(own[:, 0]), jnp.iinfo(jnp.int32).max, rank)
