"""Images that live on the devices: every device holds the split, and batches are gathered there."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hamjepa_jax.data.split import ArraySplit
from hamjepa_jax.errors import UserError

GB = 1e9  # bytes


class DeviceStore:
    """A split in device memory, replicated over the mesh.

    Attributes:
      images: [n, h, w, 3] uint8.
      labels: [n] int32.
    """

    def __init__(self, split: ArraySplit, mesh: Mesh, *, memory_budget_gb: float):
        """Copies the split to the devices of `mesh`; every process must hold the same split.

        Raises:
          UserError: if the images take more than memory_budget_gb (10^9 bytes) of each device.
        """
        needed = split.images.nbytes / GB
        if needed > memory_budget_gb:
            raise UserError(
                f"data.memory_budget_gb {memory_budget_gb}: the {len(split)} images take {needed:.2f} GB on each "
                "device; raise the budget if the memory is there, or use fewer or smaller images."
            )
        replicated = NamedSharding(mesh, PartitionSpec())
        self.images = _replicate(split.images, replicated)
        self.labels = _replicate(split.labels, replicated)


def _replicate(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    # Unlike device_put, this needs no agreement with other processes: each fills its own devices.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def gather(images: jax.Array, indices: jax.Array) -> jax.Array:
    """images[indices] for use inside jit: [n, h, w, 3] and [b] to [b, h, w, 3], sharded as the indices are.

    Indices must be within 0 … n−1; unchecked on the device.
    """
    return images.at[indices].get(mode="promise_in_bounds")
