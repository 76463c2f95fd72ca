"""The training step: what a batch, devices, micro-batches and dispatches may and may not change."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType
from opened import open_inputs

from hamjepa_jax import build
from hamjepa_jax.data import DeviceStore, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives.objective import checked
from hamjepa_jax.training.mesh import replicated
from hamjepa_jax.training.step import several_steps


def mesh_of(devices):
    return jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(AxisType.Auto,))


@pytest.fixture
def quick_config():
    """HamJEPA of another encoder: most claims here are not about the ResNet."""
    return tiny.quick("hamjepa")


PROGRAMS = {}  # Of each config and number of devices: tracing one takes longer than all of its steps.


def programs(config, devices):
    """(the first state's program, the step's, the inputs)."""
    mesh, config = mesh_of(devices), config.copy_and_resolve_references()
    source = open_source(config.data.source)
    inputs = open_inputs(config, source.train, mesh)
    training = build.build_training(
        config, build.build_model(config), len(source.train), mesh, reads=inputs.reads()
    )
    init = jax.jit(lambda: training.init(build.init_key(config)), out_shardings=replicated(mesh))
    return init, jax.jit(training.step, donate_argnums=0, out_shardings=replicated(mesh)), inputs


def run(config, *, devices=1, steps=3, anew=False):
    """Metrics by step and the final state of a few steps; `anew` builds and traces everything once more."""
    key = config.to_json(), devices
    if anew or key not in PROGRAMS:
        PROGRAMS[key] = programs(config, devices)
    init, step, inputs = PROGRAMS[key]
    state, history = init(), []
    with contextlib.closing(inputs.batches(0)) as batches:
        for _ in range(0, steps, config.train.steps_per_dispatch):
            state, metrics = step(state, inputs.store, next(batches))
            history.append(jax.device_get(metrics))
    assert step._cache_size() == 1  # compiled once
    return history, jax.device_get(state)


def same(a, b, rtol=0.0, atol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def method(config, name):
    if name == "sigreg":
        config.objective.name, config.predictor.kind = "lejepa", "identity"
    return config


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hamjepa", "sigreg"])
def test_one_and_eight_devices_agree(name, tiny_config):
    config = method(tiny_config, name)
    one, state_one = run(config, devices=1)
    eight, state_eight = run(config, devices=8)
    same(one, eight, rtol=1e-4, atol=1e-5)
    # One step's gradient, seen through the optimiser's first moment: equal to 1e-5 of its largest entry.
    leaves = zip(jax.tree.leaves(state_one.opt_state), jax.tree.leaves(state_eight.opt_state), strict=True)
    for a, b in leaves:
        np.testing.assert_allclose(a, b, atol=1e-4 * max(np.abs(a).max(), 1e-8))


@pytest.mark.slow
def test_gradients_agree_on_one_and_eight_devices(tiny_config):
    # Without Adam's division by small second moments the claim is 1e-5: look at the norm of the first gradient.
    one, eight = run(tiny_config, devices=1, steps=1)[0][0], run(tiny_config, devices=8, steps=1)[0][0]
    for name in ("total", "pred", "grad_norm"):
        np.testing.assert_allclose(one[name], eight[name], rtol=1e-5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(quick_config):
    first, again = run(quick_config)[1], run(quick_config, anew=True)[1]
    same(first, again)
    quick_config.seed = 1
    other = run(quick_config)[1]
    assert not np.array_equal(
        first.params["encoder"]["token_bn"]["bias"], other.params["encoder"]["token_bn"]["bias"]
    )


def test_several_steps_are_taken_one_after_the_other():
    steps = several_steps(lambda state, store, batch: (store * state + batch, {"before": state}))
    state, metrics = steps(1, 2, jnp.arange(3))
    assert state == 2 * (2 * (2 * 1 + 0) + 1) + 2 and metrics["before"].tolist() == [1, 2, 5]


@pytest.mark.slow
def test_scanned_steps_are_the_single_steps(quick_config):
    single, state = run(quick_config, steps=6)
    quick_config.train.steps_per_dispatch = 3
    scanned, state_scanned = run(quick_config, steps=6)
    for i, metrics in enumerate(single):
        for name, value in metrics.items():
            np.testing.assert_allclose(scanned[i // 3][name][i % 3], value, rtol=2e-3, atol=1e-4, err_msg=name)
    assert int(state.step) == int(state_scanned.step) == 6


@pytest.mark.slow
def test_accumulation_averages_gradients_of_micro_batches(quick_config):
    """Identical micro-batches accumulate to the gradient of one of them."""
    config = quick_config
    config.train.accumulation = 2
    source = open_source(config.data.source)
    mesh = mesh_of(2)
    store = DeviceStore(source.train, mesh, memory_budget_gb=1.0)
    training = build.build_training(config, build.build_model(config), len(source.train), mesh)
    state = jax.jit(lambda: training.init(build.init_key(config)), out_shardings=replicated(mesh))()
    doubled = jnp.repeat(jnp.arange(8), 2)  # micro-batches take every second index
    accumulated = jax.device_get(jax.jit(training.step)(state, store.images, doubled)[1])
    config.train.accumulation, config.train.batch_size = 1, 8
    training = build.build_training(config, build.build_model(config), 48, mesh)
    plain = jax.device_get(jax.jit(training.step)(state, store.images, jnp.arange(8))[1])
    for name in ("total", "pred", "logdet", "grad_norm"):
        np.testing.assert_allclose(accumulated[name], plain[name], rtol=1e-4)


@pytest.mark.slow
def test_projections_are_redrawn_when_due_and_only_then(quick_config):
    draws = []
    for steps in (1, 4, 5):
        draws.append(run(quick_config, steps=steps)[1].draw["q"])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.abs(draws[1] - draws[2]).max() > 0.1
    np.testing.assert_allclose(draws[2].T @ draws[2], np.eye(draws[2].shape[1]), atol=1e-5)


@pytest.mark.slow
def test_residual_scale_follows_the_epoch(quick_config):
    history, _ = run(quick_config, steps=8)  # six steps an epoch, warm-up over two epochs
    scales = [float(m["residual_scale"]) for m in history]
    np.testing.assert_allclose(scales, [0.01] * 6 + [0.02] * 2, rtol=1e-6)


@pytest.mark.slow
def test_the_predictor_has_its_own_learning_rate(quick_config):
    quick_config.optimizer.predictor_learning_rate = 0.0
    quick_config.optimizer.warmup = "0 steps"
    mesh = mesh_of(1)
    training = build.build_training(quick_config, build.build_model(quick_config), 96, mesh)
    start = jax.device_get(jax.jit(lambda: training.init(build.init_key(quick_config)))())
    _, end = run(quick_config)
    same(start.params["predictor"], end.params["predictor"])
    assert not np.array_equal(
        start.params["encoder"]["token_conv"]["kernel"], end.params["encoder"]["token_conv"]["kernel"]
    )


def test_local_views_and_a_projector_train():
    config = tiny.quick()
    config.views.num_local, config.views.local_size = 2, 6
    config.encoder.token_hw, config.encoder.projector, config.encoder.projector_dim = 2, "mlp", 12
    history, state = run(config, steps=2)
    assert np.isfinite(history[-1]["total"])
    assert state.params["projector"]["output"]["dense"]["kernel"].shape == (12, 12)


def test_encode_gives_the_embedding_after_the_projector(quick_config):
    quick_config.encoder.projector, quick_config.encoder.projector_dim = "mlp", 8
    model = build.build_model(quick_config)
    networks, images = model.init(build.init_key(quick_config)), jnp.ones((2, 8, 8, 3))
    (_, after), _ = model.embed(*networks, images)
    np.testing.assert_array_equal(model.encode(*networks, images)[0], after)
    assert after.shape == (2, 8)


@pytest.mark.slow
def test_global_mode_trains_hamjepa(quick_config):
    quick_config.encoder.mode, quick_config.encoder.embed_dim = "global", 10
    assert np.isfinite(run(quick_config, steps=2)[0][-1]["total"])


@pytest.mark.slow
def test_bfloat16_stays_near_float32(tiny_config):
    exact = run(tiny_config, steps=1)[0][0]
    tiny_config.encoder.dtype = "bfloat16"
    rounded = run(tiny_config, steps=1)[0][0]
    np.testing.assert_allclose(rounded["total"], exact["total"], rtol=0.02)


@pytest.mark.parametrize(
    "returned, message",
    [
        (jnp.ones(()), r"returned \w*Array"),
        (None, "returned NoneType"),
        ((1.0, 3), "returned tuple"),
        ((jnp.ones(2), {}), r"'loss' is float32 \(2,\)"),
        ((jnp.int32(1), {}), r"'loss' is int32"),
        ((1.0, {"a": jnp.ones(2)}), r"'a' is float32 \(2,\)"),
        ((1.0, {"a": "b"}), r"'a' is <U1"),
        ((1.0, {1: 1.0}), "1 is no name"),
        ((1.0, {"grad_norm": 1.0}), "'grad_norm' is no name for a scalar, or the step's own"),
    ],
)
def test_a_loss_of_another_form_is_refused(returned, message):
    with pytest.raises(UserError, match=rf"must return \(scalar, {{name: scalar}}\).*{message}"):
        checked(returned)
