"""Parameters that are split over "fsdp", gathered where a network uses them and not kept.

Every array is gathered anew in the forward and in the backward pass, once for the views of each size: between its
uses a device holds its part alone. Gradients are split as soon as they are summed over the devices. The arithmetic
is that of data parallelism, with whole parameters and a split batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from hamjepa_jax.training.mesh import parameters_sharded, replicated, shards


def gathered(mesh: Mesh, params: Any) -> Any:
    """The parameters whole on every device; their gradient is split as they were."""
    if shards(mesh) == 1:
        return params
    return jax.tree.map(functools.partial(_gathered, mesh), params)


def gathering(mesh: Mesh, apply: Callable) -> Callable:
    """`apply`, (params, …) -> outputs, of split parameters: an array is gathered for its use, and again backwards.

    What else the backward pass needs is kept as it would be without this.
    """
    if shards(mesh) == 1:
        return apply
    return jax.checkpoint(lambda params, *rest, **more: apply(gathered(mesh, params), *rest, **more), policy=_kept)


def not_before(mesh: Mesh, params: Any, value: Any) -> Any:
    """The parameters, which are not to be gathered before `value` is there."""
    if shards(mesh) == 1:
        return params
    return jax.lax.optimization_barrier((params, jax.lax.stop_gradient(value)))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _gathered(mesh: Mesh, x: jax.Array) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, replicated(mesh))


def _forwards(mesh: Mesh, x: jax.Array) -> tuple[jax.Array, None]:
    return _gathered(mesh, x), None


def _backwards(mesh: Mesh, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.with_sharding_constraint(gradient, parameters_sharded(mesh, gradient)),)


_gathered.defvjp(_forwards, _backwards)


def _kept(primitive: Any, *_: Any, **__: Any) -> bool:
    """Whether a value is kept for the backward pass: all but what `gathered` makes."""
    return primitive.name not in ("custom_vjp_call", "sharding_constraint")
