"""Devices as a mesh, and where arrays live on it.

The mesh has two axes, "data" and "fsdp". A batch is split over both; parameters and the optimiser's state are split
over "fsdp" and repeated along "data". With fsdp = 1 this is plain data parallelism.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hamjepa_jax.nn import sharing
from hamjepa_jax.training.state import TrainState

AXES = ("data", sharing.AXIS)


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


def parameters_sharded(mesh: Mesh, params: Any) -> Any:
    """Shardings, in a tree like `params` (arrays or shapes): large ones split over "fsdp", the others whole.

    See `nn.sharing.split`.
    """
    devices = dict(mesh.shape).get(sharing.AXIS, 1)
    return jax.tree.map(lambda x: NamedSharding(mesh, sharing.split(x.shape, devices)), params)


def gathered(mesh: Mesh, params: Any, layers: str | None = None) -> Any:
    """Parameters whole on every device, but for those of the trunk's layers that the trunk gathers itself.

    Args:
      mesh: devices.
      params: {"encoder", …} of arrays, split.
      layers: prefix of the names of these layers in the trunk; None if it has none.
    """

    def whole(path: tuple, x: jax.Array) -> jax.Array:
        names = [getattr(key, "key", None) for key in path[:3]]
        if layers is not None and names[:2] == ["encoder", "trunk"] and names[2].startswith(layers):
            return x
        return jax.lax.with_sharding_constraint(x, replicated(mesh))

    return jax.tree_util.tree_map_with_path(whole, params)


def state_sharding(mesh: Mesh, state: TrainState) -> TrainState:
    """Where a training state (of arrays or shapes) lives.

    Networks, optimisers' state, what an objective carries and the online probe are split, the rest is whole. Adam's
    moments have the shapes of their parameters, so they lie with them.
    """
    whole = jax.tree.map(lambda _: replicated(mesh), state)
    names = ("params", "opt_state", "carried", "probe")
    split = {name: parameters_sharded(mesh, getattr(state, name)) for name in names}
    if state.teacher is not None:
        split["teacher"] = whole.teacher | {"params": parameters_sharded(mesh, state.teacher["params"])}
    return whole.replace(**split)
