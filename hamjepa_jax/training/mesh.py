"""Devices as a mesh, and where arrays live on it."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

BATCH_AXIS = "data"


def make_mesh() -> Mesh:
    """All devices of all processes along one axis that batches are split over."""
    return jax.make_mesh((jax.device_count(),), (BATCH_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The given axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, BATCH_AXIS))
