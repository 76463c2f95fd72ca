"""Which examples make up the batch of a step: a function of (seed, step), so a resumed run continues exactly."""

from collections.abc import Iterator

import jax
import numpy as np

from hamjepa_jax import rng
from hamjepa_jax.errors import UserError


def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order [n] int32 in which epoch `epoch` (from 0) goes through n examples."""
    try:
        device = jax.local_devices(backend="cpu")[0]  # a host computation; an accelerator would only be delayed
    except RuntimeError:  # JAX_PLATFORMS leaves out the CPU
        device = jax.local_devices()[0]
    with jax.default_device(device):
        order = jax.random.permutation(rng.stream(seed, "order", epoch), n)
    return np.asarray(order, np.int32)


def batch_indices(seed: int, step: int, *, n: int, batch_size: int) -> np.ndarray:
    """The examples [batch_size] int32 of step `step` (from 0); the last partial batch of an epoch is dropped.

    Raises:
      UserError: if there are fewer than batch_size examples.
    """
    return next(index_batches(seed, step, n=n, batch_size=batch_size))


def index_batches(seed: int, first_step: int, *, n: int, batch_size: int) -> Iterator[np.ndarray]:
    """batch_indices of first_step, first_step + 1, … without end; each epoch's permutation is computed once.

    Raises:
      UserError: if there are fewer than batch_size examples (at once, not at the first batch).
    """
    check_batch_size(batch_size, n)
    return _batches(seed, first_step, n, batch_size)


def check_batch_size(batch_size: int, n: int) -> None:
    """Raises UserError unless n examples fill a batch."""
    if not 0 < batch_size <= n:
        raise UserError(
            f"train.batch_size {batch_size}: data.source has {n} training images, which do not fill one batch; "
            f"expected a batch of 1 to {n} images."
        )


def _batches(seed: int, first_step: int, n: int, batch_size: int) -> Iterator[np.ndarray]:
    epoch, position = divmod(first_step, n // batch_size)
    while True:
        order = permutation(seed, epoch, n)
        for i in range(position, n // batch_size):
            yield order[i * batch_size : (i + 1) * batch_size]
        epoch, position = epoch + 1, 0
