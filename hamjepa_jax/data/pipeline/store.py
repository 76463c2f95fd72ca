"""Images that live on the devices: each holds an equal part of them, and batches are gathered there."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hamjepa_jax.data.split import ArraySplit
from hamjepa_jax.errors import UserError

GB = 1e9  # bytes


class DeviceStore:
    """A split in device memory, spread over all devices of a mesh.

    Attributes:
      images: [n', h, w, 3] uint8: n images, then black ones, so that n' is a multiple of the devices.
    """

    def __init__(self, split: ArraySplit, mesh: Mesh, *, memory_budget_gb: float):
        """Copies the split to the devices of `mesh`; every process must hold the same split.

        Raises:
          UserError: if a device's share of the images takes more than memory_budget_gb (10^9 bytes).
        """
        share = rows_spread(len(split), mesh) // mesh.size * split.images[0].nbytes / GB
        if share > memory_budget_gb:
            raise UserError(
                f"data.memory_budget_gb {memory_budget_gb}: the {len(split)} images take {share:.2f} GB on each of "
                f"{mesh.size} devices; raise the budget if the memory is there, or use fewer or smaller images."
            )
        self.images = spread(split.images, mesh)


def spread(images: np.ndarray, mesh: Mesh) -> jax.Array:
    """[n, …] as a global array [n', …] whose first axis is split over all devices, with zeros after row n.

    Every process reads only the rows that its own devices hold, so `images` may be a file mapped into memory.
    """
    rows = rows_spread(len(images), mesh)

    def part(index: tuple[slice, ...]) -> np.ndarray:
        held = images[index[0]]
        first, stop, _ = index[0].indices(rows)
        missing = stop - first - len(held)
        return np.concatenate([held, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else held

    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.make_array_from_callback((rows, *images.shape[1:]), sharding, part)


def rows_spread(n: int, mesh: Mesh) -> int:
    """n rounded up to a multiple of the devices."""
    return -(-n // mesh.size) * mesh.size


def gather(images: jax.Array, indices: jax.Array, mesh: Mesh) -> jax.Array:
    """images[indices] for use inside jit: [n', h, w, 3] and [b] to [b, h, w, 3], the batch split over all devices.

    With several devices each puts its own rows of the whole batch into zeros, and a reduce-scatter brings every
    device its part of the batch: sums with one term that is not zero are exact in bytes. This takes the memory of
    one global batch of images on each device.

    Args:
      images: of `spread`.
      indices: within 0 … n−1, unchecked on the device; b is a multiple of the devices.
      mesh: the images'.
    """
    if mesh.size == 1:
        return images.at[indices].get(mode="promise_in_bounds")
    axes = mesh.axis_names

    def exchange(held: jax.Array, indices: jax.Array) -> jax.Array:
        rows = jax.lax.all_gather(indices, axes, tiled=True) - jax.lax.axis_index(axes) * held.shape[0]
        is_here = (rows >= 0) & (rows < held.shape[0])
        found = held.at[jnp.where(is_here, rows, 0)].get(mode="promise_in_bounds").reshape(len(rows), -1)
        found = jnp.where(is_here[:, None], found, jnp.zeros((), held.dtype))
        # In words of 4 bytes: TPUs would widen every byte to one, and exchange four times as much.
        size = found.shape[1]
        words = jnp.pad(found, ((0, 0), (0, -size % 4))).reshape(len(rows), -1, 4)
        words = jax.lax.psum_scatter(jax.lax.bitcast_convert_type(words, jnp.uint32), axes, tiled=True)
        part = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(len(words), -1)[:, :size]
        return part.reshape(-1, *held.shape[1:])

    over_devices = PartitionSpec(axes)
    return jax.shard_map(exchange, mesh=mesh, in_specs=over_devices, out_specs=over_devices)(images, indices)
