"""The mesh: what "fsdp" splits, that it changes no number, and how much memory it frees."""

import contextlib
import math

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from hamjepa_jax.run.setup import compile_step, set_up
from hamjepa_jax.training import mesh as mesh_lib


@pytest.fixture
def wide(tiny_config):
    """Three of the encoder's kernels have 2¹⁴ elements or more."""
    tiny_config.encoder.width = 32
    return tiny_config


def setup(config, fsdp):
    config.mesh.fsdp = fsdp
    made = set_up(config)
    opened = made.inputs.open()
    with contextlib.closing(opened.batches(0)) as stream:
        batches = [next(stream) for _ in range(3)]
    return made.init, compile_step(made, opened.store, batches[0]), opened.store, batches, made.abstract


def run(config, fsdp):
    init, step, store, batches, _ = setup(config, fsdp)
    state, losses = init(), []
    for batch in batches:
        state, metrics = step(state, store, batch)
        losses.append(float(metrics["total"]))
    return losses, state


def test_the_axes_divide_all_devices():
    mesh = mesh_lib.make_mesh(4)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 4}
    assert mesh_lib.batch_sharded(mesh, axis=1).spec == PartitionSpec(None, ("data", "fsdp"))


def test_large_arrays_are_split_along_their_longest_axis_that_divides():
    mesh = mesh_lib.make_mesh(4)
    shapes = {"kernel": (3, 3, 64, 128), "odd": (20000, 3), "small": (64, 64), "prime": (16411,)}
    abstract = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()}
    specs = {name: s.spec for name, s in mesh_lib.parameters_sharded(mesh, abstract).items()}
    assert specs == {
        "kernel": PartitionSpec(None, None, None, "fsdp"),
        "odd": PartitionSpec("fsdp"),
        "small": PartitionSpec(),
        "prime": PartitionSpec(),
    }


@pytest.mark.slow
def test_fsdp_changes_no_number(wide):
    losses, state = run(wide, 1)
    losses_split, state_split = run(wide, 4)
    np.testing.assert_allclose(losses_split, losses, rtol=1e-5)
    pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(state_split.params), strict=True)
    # Adam divides a gradient by its size: a wrong one would move its parameters by about the learning rate, the
    # rounding of a small one moves it by a few hundredths of that, of the smallest among thousands by more.
    moved = np.concatenate([np.abs(np.asarray(a) - np.asarray(b)).ravel() for a, b in pairs])
    moved /= wide.optimizer.learning_rate
    assert np.mean(moved > 0.1) < 1e-3 and moved.max() < 0.5
    split = [x for x in jax.tree.leaves(state_split) if not x.sharding.is_fully_replicated]
    assert len(split) >= 9  # Three kernels, with two moments each, still split after the steps.


@pytest.mark.slow
def test_fsdp_frees_the_memory_that_was_predicted(wide):
    held = {}
    for fsdp in (1, 2, 8):
        _, step, store, batches, abstract = setup(wide, fsdp)
        leaves = jax.tree.leaves((abstract, store, batches[0]))
        predicted = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
        held[fsdp] = step.program.memory_analysis().argument_size_in_bytes
        assert held[fsdp] == predicted + 4  # And the seed.
    large = sum(x.size * 4 for x in jax.tree.leaves(abstract) if x.size >= mesh_lib.MIN_SHARDED)
    assert held[1] - held[8] == large * 7 // 8
    assert held[1] - held[2] == large // 2
