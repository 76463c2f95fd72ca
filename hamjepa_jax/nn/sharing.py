"""Parameters that devices share: which are split, and layers that gather theirs one after another.

The devices along a mesh's axis "fsdp" hold one copy of the parameters between them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

AXIS = "fsdp"
# Arrays with fewer elements stay whole on every device: gathering them would cost more than it saves.
MIN_SHARED = 2**14


def split(shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """How so many devices share an array: along the longest axis that they divide; small arrays are whole."""
    divisible = [axis for axis, size in enumerate(shape) if size % devices == 0]
    if devices == 1 or not divisible or math.prod(shape) < MIN_SHARED:
        return PartitionSpec()
    return PartitionSpec(*[None] * max(divisible, key=lambda axis: shape[axis]), AXIS)


def sharing() -> int:
    """Devices that share a copy of the parameters in the mesh in force (`jax.sharding.use_abstract_mesh`)."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(AXIS, 1)


def in_turn(layer: Callable[[Any, jax.Array], jax.Array], params: Sequence[Any], x: jax.Array) -> jax.Array:
    """Equal layers, one after another: x -> layer(params[n − 1], … layer(params[0], x)), of the type of x.

    It is a loop. A pass gathers the parameters of one layer, in the backward pass again, and splits their gradient,
    so a device holds few whole layers at a time. Kept for the backward pass are x and the products with weights;
    all else, as the weights of attention, is computed anew there.

    Args:
      layer: (parameters, x) -> x.
      params: trees of one form, split over the devices of the mesh in force.
      x: [b, …], of which each device of the mesh has its part of b.
    """

    def one(x: jax.Array, params: Any) -> tuple[jax.Array, None]:
        x = jax.lax.with_sharding_constraint(x, PartitionSpec(jax.sharding.get_abstract_mesh().axis_names))
        return layer(jax.tree.map(_gathered, params), x), None

    products = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    one = jax.checkpoint(one, policy=products, prevent_cse=False)
    return jax.lax.scan(one, x, jax.tree.map(lambda *each: jnp.stack(each), *params))[0]


@jax.custom_vjp
def _gathered(w: jax.Array) -> jax.Array:
    """An array that is split, whole on every device; its gradient is split again."""
    return jax.lax.with_sharding_constraint(_split(w), PartitionSpec())


def _split(w: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(w, split(w.shape, sharing()))


_gathered.defvjp(lambda w: (_gathered(w), None), lambda _, gradient: (_split(gradient),))
