"""Devices as a mesh, and where arrays live on it.

The mesh has two axes, "data" and "fsdp". A batch is split over both; parameters and the optimiser's state are split
over "fsdp" and repeated along "data"; `gathering` makes parameters whole where they are used. With fsdp = 1 this is
plain data parallelism.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hamjepa_jax.training.state import TrainState

AXES = ("data", "fsdp")
# Arrays with fewer elements stay whole on every device: gathering them would cost more than it saves.
MIN_SHARDED = 2**14


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of all processes (or the given ones) as a "data" × "fsdp" grid.

    Args:
      fsdp: devices that share one copy of the parameters; must divide the number of devices.
      devices: to use in place of all.
    """
    count = jax.device_count() if devices is None else len(devices)
    return jax.make_mesh((count // fsdp, fsdp), AXES, devices=devices, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharded(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The given axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, mesh.axis_names))


def shards(mesh: Mesh) -> int:
    """Devices that share one copy of the parameters."""
    return dict(mesh.shape).get("fsdp", 1)


def parameters_sharded(mesh: Mesh, params: Any) -> Any:
    """Shardings, in a tree like `params` (arrays or shapes): large ones split over "fsdp", the others whole.

    An array is split along the longest axis that the number of shards divides.
    """
    number = shards(mesh)

    def place(x) -> NamedSharding:
        divisible = [axis for axis, size in enumerate(x.shape) if size % number == 0]
        if number == 1 or not divisible or math.prod(x.shape) < MIN_SHARDED:
            return replicated(mesh)
        longest = max(divisible, key=lambda axis: x.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(place, params)


def state_sharding(mesh: Mesh, state: TrainState) -> TrainState:
    """Where a training state (of arrays or shapes) lives: networks, online probe and optimisers' state split.

    Adam's moments have the shapes of their parameters, so they lie with them.
    """
    whole = jax.tree.map(lambda _: replicated(mesh), state)
    split = {name: parameters_sharded(mesh, getattr(state, name)) for name in ("params", "opt_state", "probe")}
    if state.teacher is not None:
        split["teacher"] = whole.teacher | {"params": parameters_sharded(mesh, state.teacher["params"])}
    return whole.replace(**split)
