"""The mesh: what "fsdp" splits, that it changes no number, and how much memory it frees."""

import contextlib
import math
import pathlib
import re

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec

from hamjepa_jax import parts
from hamjepa_jax.config import complete
from hamjepa_jax.nn import sharing
from hamjepa_jax.nn.sharing import MIN_SHARED
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
    large = sum(x.size * 4 for x in jax.tree.leaves(abstract) if x.size >= MIN_SHARED)
    assert held[1] - held[8] == large * 7 // 8
    assert held[1] - held[2] == large // 2


def of_vit(config, objective):
    """A transformer of three blocks whose kernels are split."""
    config.objective.name = objective
    if objective == "i_jepa":
        config.predictor.kind, config.encoder.split_qp = "identity", False
        config.objective.i_jepa.num_blocks, config.objective.i_jepa.predictor_depth = 2, 1
    vit = config.encoder.vit
    config.encoder.trunk, vit.patch, vit.image_size = "vit_tiny", 2, 8
    vit.dim, vit.depth, vit.heads = 128, 3, 4
    return config


@pytest.mark.slow
@pytest.mark.parametrize("objective, accumulation", [("hamjepa", 2), ("i_jepa", 1)])
def test_blocks_gathered_in_turn_change_no_number(tiny_config, objective, accumulation):
    config = of_vit(tiny_config, objective)
    config.train.accumulation = accumulation
    (losses, state), (losses_split, state_split) = run(config, 1), run(config, 4)
    np.testing.assert_allclose(losses_split, losses, rtol=1e-5)
    kernels = [s.params["encoder"]["trunk"]["blocks_2"]["mlp"]["fc1"]["kernel"] for s in (state, state_split)]
    assert "fsdp" in kernels[1].sharding.spec
    moved = np.abs(np.asarray(kernels[0]) - np.asarray(kernels[1])) / config.optimizer.learning_rate
    assert np.mean(moved > 0.1) < 1e-3


@pytest.mark.slow
def test_a_step_gathers_the_blocks_in_loops(tiny_config):
    _, step, *_ = setup(of_vit(tiny_config, "hamjepa"), 8)
    kernels = re.findall(r"= f32\[(?:1,)?128,512\]\S* all-gather\(", step.program.as_text())
    assert len(kernels) == 2  # Of the three blocks: one forwards, one backwards.


@pytest.mark.slow
def test_what_an_objective_carries_is_split_and_no_number_changes(monkeypatch):
    monkeypatch.setattr(sharing, "MIN_SHARED", 1)  # All that four devices divide.
    config = tiny.quick()
    config.plugins += (str(pathlib.Path(__file__).parents[1] / "plugins" / "toy_wide.py"),)
    parts.load_plugins(config.plugins)
    config = complete(config)
    config.objective.name, config.encoder.split_qp = "toy_wide", False
    (losses, state), (losses_split, state_split) = run(config, 1), run(config, 4)
    np.testing.assert_allclose(losses_split, losses, rtol=1e-5)
    mean = state_split.carried["mean"]
    assert "fsdp" in mean.sharding.spec and np.abs(mean).max() > 0
    np.testing.assert_allclose(mean, state.carried["mean"], rtol=1e-4, atol=1e-6)
