"""Parameters split over "fsdp" are whole for their use alone, and the same numbers come out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hamjepa_jax.aot.hlo import parse
from hamjepa_jax.run.setup import lower_step, set_up
from hamjepa_jax.training.gathering import gathered, gathering, not_before
from hamjepa_jax.training.mesh import batch_sharded, make_mesh, parameters_sharded

BLOCKS, DIM = 4, 256
BLOCK_BYTES = 4 * 12 * DIM**2  # of the four kernels of a transformer's block, in float32


def layers(params, x):
    for w in params:
        x = jnp.tanh(jnp.matmul(x, w, precision="highest"))
    return x, x.sum()


@pytest.fixture(scope="module")
def split():
    """(mesh, parameters of three layers, each an eighth on each device, a batch over all devices)."""
    mesh = make_mesh(fsdp=8)
    keys = jax.random.split(jax.random.key(0), 4)
    params = [jax.random.normal(key, (DIM, DIM)) / 16 for key in keys[:3]]
    x = jax.device_put(jax.random.normal(keys[3], (16, DIM)), batch_sharded(mesh))
    return mesh, jax.device_put(params, parameters_sharded(mesh, params)), x


def loss(apply, params, x):
    return jnp.square(apply(params, x)[0]).sum()


def test_gradients_are_those_of_whole_parameters_and_split_like_them(split):
    mesh, params, x = split
    whole = jax.grad(lambda p: loss(layers, p, jax.device_get(x)))(jax.device_get(params))
    found = jax.jit(jax.grad(lambda p, x: loss(gathering(mesh, layers), p, x)))(params, x)
    for a, b, w in zip(found, whole, params, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        assert a.sharding.is_equivalent_to(w.sharding, 2)


def gathers(function, *arguments):
    program = parse(jax.jit(function).lower(*arguments).compile().as_text())
    return [i for i in program.instructions() if i.opcode.startswith("all-gather") and "done" not in i.opcode]


def test_an_array_is_gathered_once_forwards_and_once_backwards(split):
    mesh, params, x = split
    apply = gathering(mesh, layers)
    assert len(gathers(lambda p, x: loss(apply, p, x), params, x)) == 3
    # The first layer's own kernel is not needed for the gradient of the kernels.
    assert len(gathers(jax.grad(lambda p, x: loss(apply, p, x)), params, x)) == 5
    assert len(gathers(jax.grad(lambda p, x: loss(layers, gathered(mesh, p), x)), params, x)) == 3


def test_a_second_group_of_views_gathers_anew_and_changes_no_number(split):
    mesh, params, x = split
    apply = gathering(mesh, layers)

    def two(params, x, tie):
        first = apply(params, x)[0]
        second = apply(not_before(mesh, params, first) if tie else params, 2 * x)[0]
        return jnp.square(first).sum() + jnp.square(second).sum()

    tied = jax.jit(jax.value_and_grad(lambda p, x: two(p, x, True)))(params, x)
    free = jax.jit(jax.value_and_grad(lambda p, x: two(p, x, False)))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), tied, free)


def test_without_split_parameters_nothing_is_changed(split):
    mesh, (_, params, x) = make_mesh(1), split
    assert gathering(mesh, layers) is layers
    assert gathered(mesh, params) is params and not_before(mesh, params, x) is params


def transformer(fsdp, blocks=BLOCKS, dim=DIM):
    config = tiny.quick()
    config.encoder.trunk, config.encoder.token_norm, config.encoder.token_hw = "vit_tiny", "layer", 1
    vit = config.encoder.vit
    vit.dim, vit.depth, vit.heads, vit.patch, vit.image_size = dim, blocks, 4, 4, 8
    config.mesh.fsdp = fsdp
    return config


def most_gathered(program):
    """Bytes of gathered arrays that the schedule keeps at a time, at most."""
    instructions = program.computations[program.entry]
    last = {name: place for place, i in enumerate(instructions) for name in i.operands}
    alive = np.zeros(len(instructions) + 1, np.int64)
    for place, i in enumerate(instructions):
        if i.opcode == "all-gather":
            alive[place : last[i.name] + 1] += sum(array.size for array in i.arrays)
    return alive.max()


@pytest.mark.slow
def test_a_step_holds_less_than_a_block_of_whole_parameters():
    setup = set_up(transformer(fsdp=8))
    # The default schedule of CPUs runs everything as early as it can, whatever memory that takes.
    schedule = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    step = lower_step(setup, *setup.inputs.abstract()).compile(compiler_options=schedule)
    program = parse(step.as_text())
    assert "is_scheduled=true" in step.as_text()
    total = sum(array.size for i in program.instructions() if i.opcode == "all-gather" for array in i.arrays)
    assert total > 1.9 * BLOCKS * BLOCK_BYTES  # forwards and backwards
    # Gathered at once, and kept for the backward pass, there would be four blocks.
    assert 0 < most_gathered(program) < BLOCK_BYTES


@pytest.mark.slow
def test_a_split_transformer_learns_as_a_whole_one():
    states = {}
    for fsdp in (1, 8):
        config = transformer(fsdp, blocks=1, dim=128)
        config.views.num_local, config.views.local_size = 2, 4
        setup = set_up(config)
        split = sum(not x.sharding.is_fully_replicated for x in jax.tree.leaves(setup.abstract.params))
        assert split == (4 if fsdp == 8 else 0)
        opened = setup.inputs.open()
        step = lower_step(setup, *setup.inputs.abstract()).compile()
        state, batches = setup.init(), opened.batches(0)
        for _ in range(2):
            state, metrics = step(state, opened.store, next(batches))
        batches.close()
        states[fsdp] = jax.device_get((metrics, state.params))
    (metrics, whole), (metrics_split, parts) = states[1], states[8]
    for name, value in metrics.items():
        np.testing.assert_allclose(metrics_split[name], value, rtol=1e-4, err_msg=name)
    moved = np.concatenate(
        [np.abs(a - b).ravel() for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True)]
    )
    # Adam divides a gradient by its size: rounding moves a parameter by a part of the learning rate, see test_mesh.
    moved /= config.optimizer.learning_rate
    assert np.mean(moved > 0.1) < 1e-3 and moved.max() < 0.5
