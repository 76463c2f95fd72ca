"""Every random number of a run is a function of (seed, stream name, step): nothing has to be saved to resume."""

import zlib

import jax


def stream(seed: int | jax.Array, name: str, step: int | jax.Array = 0) -> jax.Array:
    """The key of stream `name` at `step`.

    Args:
      seed: the run's seed; may be traced.
      name: what the numbers are for ("views", "order", "logdet", ...); streams of different names are independent.
      step: optimiser step, epoch or refresh count, whichever the stream advances with; may be traced.

    Returns:
      A scalar typed PRNG key.
    """
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(key, step)
