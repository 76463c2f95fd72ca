"""Parameters that devices share: which are split, and layers that gather theirs one after another."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from hamjepa_jax.nn import sharing
from hamjepa_jax.training.mesh import batch_sharded, make_mesh

CHANNELS, HIDDEN = 64, 256  # 2¹⁴ elements: the fewest that are split


@pytest.mark.parametrize(
    "shape, devices, spec",
    [
        ((3, 3, 64, 128), 4, PartitionSpec(None, None, None, "fsdp")),
        ((20000, 3), 4, PartitionSpec("fsdp")),
        ((128, 128), 4, PartitionSpec("fsdp")),  # The first of two axes that are equally long.
        ((64, 64), 4, PartitionSpec()),
        ((16411,), 4, PartitionSpec()),
        ((3, 3, 64, 128), 1, PartitionSpec()),
    ],
)
def test_large_arrays_are_split_along_their_longest_axis_that_divides(shape, devices, spec):
    assert sharing.split(shape, devices) == spec


def test_outside_a_mesh_nothing_is_shared():
    assert sharing.sharing() == 1
    with jax.sharding.use_abstract_mesh(make_mesh(4).abstract_mesh):
        assert sharing.sharing() == 4
    with jax.sharding.use_abstract_mesh(jax.make_mesh((8,), ("other",)).abstract_mesh):
        assert sharing.sharing() == 1


def layer(params, x):
    return x + jnp.tanh(x @ params["in"] + params["bias"][None]) @ params["out"]


def gathered_at_first(layer, params, x):
    for each in jax.lax.with_sharding_constraint(params, PartitionSpec()):
        x = layer(each, x)
    return x


def compiled(stack, layers, fsdp):
    """Loss and gradients of a stack of layers on 8 devices, and its program."""
    mesh, rng = make_mesh(fsdp), np.random.default_rng(0)

    def drawn(*shape):
        spec = sharing.split(shape, fsdp)
        return jax.device_put(rng.normal(size=shape).astype(np.float32) / 16, NamedSharding(mesh, spec))

    params = [
        {"in": drawn(CHANNELS, HIDDEN), "bias": drawn(HIDDEN), "out": drawn(HIDDEN, CHANNELS)}
        for _ in range(layers)
    ]
    x = jax.device_put(rng.normal(size=(16, CHANNELS)).astype(np.float32), batch_sharded(mesh))

    def loss(params, x):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jnp.square(stack(layer, params, x)).sum()

    shardings = jax.tree.map(lambda w: w.sharding, params)
    step = jax.jit(jax.value_and_grad(loss, (0, 1)), out_shardings=(None, (shardings, x.sharding)))
    program = step.lower(params, x).compile()
    return program(params, x), program


@pytest.mark.parametrize("fsdp", [2, 8])
def test_layers_in_turn_are_layers_one_after_another(fsdp):
    (loss, gradients), _ = compiled(sharing.in_turn, 3, fsdp)
    (loss_plain, gradients_plain), _ = compiled(gathered_at_first, 3, fsdp)
    np.testing.assert_allclose(loss, loss_plain, rtol=1e-6)
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(gradients_plain), strict=True)
    for ours, plain in pairs:
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5)


def gatherings(program):
    """Computation of the program -> whole weights that it gathers."""
    found, name = {}, ""
    for line in program.as_text().splitlines():
        if line.endswith("{"):
            name = line.split()[0]
        elif re.search(r"= f32\[(64,256|256,64)\]\S* all-gather", line):
            found[name] = found.get(name, 0) + 1
    return found


def test_a_pass_of_the_loop_gathers_one_layer_forwards_and_backwards():
    (_, shallow), (_, deep) = (compiled(sharing.in_turn, layers, 8) for layers in (2, 6))
    # Two weights in the body of each loop, however many layers there are.
    assert sorted(gatherings(shallow).values()) == sorted(gatherings(deep).values()) == [2, 2]
    assert "ENTRY" not in gatherings(deep)


def test_more_layers_need_no_more_memory_for_whole_weights():
    whole, layers = 2 * 4 * CHANNELS * HIDDEN, 6  # Bytes of the weights of a layer.
    needed = [
        compiled(stack, layers, 8)[1].memory_analysis().temp_size_in_bytes
        for stack in (sharing.in_turn, gathered_at_first)
    ]
    assert needed[1] > layers * whole  # The control: gathered once, they stay for the backward pass.
    assert needed[0] < 4 * whole
