"""Features of a frozen encoder for a whole data set, and the parts of a state that are read out."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Array = jax.Array
Images = np.ndarray | jax.Array


def extract(
    apply_fn: Callable[..., Array],
    images: Images | Iterable[Images],
    *,
    batch_size: int,
    variables: Any = None,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """Features of every image, in order.

    Every batch is filled up to one size with repeats of its last image, and their features are cut off again. So
    nothing is dropped, and `apply_fn` is compiled once. It must treat images independently of each other (BatchNorm
    with running averages).

    Args:
      apply_fn: [b, h, w, c] images as the data holds them (uint8) -> [b, K] features; normalises the images itself.
        With `variables` it is called as apply_fn(variables, images).
      images: [n, h, w, c], or an iterable of batches [b', h, w, c] with b' ≤ batch_size; or anything else with one
        row for each image that `apply_fn` understands, such as their positions [n].
      batch_size: images per call over all devices, no more than there are; rounded up to a multiple of the number
        of devices.
      variables: weights for `apply_fn`. A caller that evaluates repeatedly should pass them here, with the same
        function each time: a closure over weights is a new function, which is compiled anew.
      mesh: devices to spread each batch over (all axes of the mesh together); with several processes each must
        pass the same images, and each gets all features. Without it, one device.

    Returns:
      [n, K] float32 NumPy array on the host.

    Raises:
      ValueError: if there are no images, a batch exceeds batch_size, or the features are no matrix.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, got {batch_size}.")
    if mesh is None:
        spread, forward = None, jax.jit(apply_fn)
    else:
        spread = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        forward = jax.jit(apply_fn, out_shardings=NamedSharding(mesh, PartitionSpec()))
    if hasattr(images, "shape"):
        batch_size = min(batch_size, max(1, images.shape[0]))
    if mesh is not None:
        batch_size += -batch_size % mesh.size

    features, waiting = [], None
    for batch in _batches(images, batch_size):
        count = batch.shape[0]
        batch = _fill(batch, batch_size)
        if spread is not None:
            batch = _spread(batch, spread)
        z = forward(batch) if variables is None else forward(variables, batch)
        if z.ndim != 2 or z.shape[0] != batch_size:
            raise ValueError(f"apply_fn must return features [{batch_size}, K] for its images, got {z.shape}.")
        # Fetched one batch late, so that the device computes the next one meanwhile.
        if waiting is not None:
            features.append(_fetch(*waiting))
        waiting = z, count
    if waiting is None:
        raise ValueError("extract got no images.")
    return np.concatenate([*features, _fetch(*waiting)])


def area_downsample(images: Array, largest: int) -> Array:
    """Images no larger than `largest` pixels a side: each pixel the mean over the area it covers.

    Args:
      images: [b, h, w, c] float.
      largest: side that neither height nor width exceeds afterwards; each is reduced on its own.

    Returns:
      [b, min(h, largest), min(w, largest), c].
    """
    for axis in (1, 2):
        size = images.shape[axis]
        if size > largest:
            images = jnp.moveaxis(jnp.tensordot(images, _overlaps(size, largest), axes=(axis, 1)), -1, axis)
    return images


def _overlaps(size: int, bins: int) -> np.ndarray:
    """[bins, size]: the share of each pixel in the mean over each of `bins` equal parts of the axis."""
    edges = np.arange(bins + 1) * size / bins
    pixels = np.arange(size)
    high = np.minimum(edges[1:, None], pixels[None, :] + 1)
    low = np.maximum(edges[:-1, None], pixels[None, :])
    return (np.maximum(high - low, 0.0) * bins / size).astype(np.float32)


def readouts(z: Array | np.ndarray, *, split: bool) -> dict[str, Array | np.ndarray]:
    """The parts of the states that are evaluated.

    Args:
      z: [n, K] states; with `split`, z = [q; p] with K = 2d.
      split: whether the state has a position and a momentum half.

    Returns:
      {"q": [n, d], "p": [n, d], "qp": [n, 2d]}, or {"z": [n, K]} without the split.

    Raises:
      ValueError: if z is no matrix, or has an odd number of coordinates to split.
    """
    if z.ndim != 2:
        raise ValueError(f"readouts expects states [n, K], got shape {z.shape}.")
    if not split:
        return {"z": z}
    if z.shape[1] % 2:
        raise ValueError(f"states of shape {z.shape} have an odd number of coordinates: no q and p halves.")
    d = z.shape[1] // 2
    return {"q": z[:, :d], "p": z[:, d:], "qp": z}


def _batches(images: Images | Iterable[Images], batch_size: int) -> Iterator[Images]:
    if hasattr(images, "shape"):
        for start in range(0, images.shape[0], batch_size):
            yield images[start : start + batch_size]
        return
    for batch in images:
        if batch.shape[0] > batch_size:
            raise ValueError(f"a batch of shape {batch.shape} exceeds batch_size={batch_size}.")
        if batch.shape[0]:
            yield batch


def _fill(batch: Images, batch_size: int) -> Images:
    missing = batch_size - batch.shape[0]
    if not missing:
        return batch
    xp = jnp if isinstance(batch, jax.Array) else np  # Images on the device stay there.
    return xp.concatenate([batch, xp.repeat(batch[-1:], missing, axis=0)])


def _spread(batch: Images, sharding: NamedSharding) -> Array:
    if isinstance(batch, jax.Array):
        return jax.device_put(batch, sharding)
    return jax.make_array_from_callback(batch.shape, sharding, lambda index: batch[index])


def _fetch(z: Array, count: int) -> np.ndarray:
    return np.asarray(z, np.float32)[:count]
