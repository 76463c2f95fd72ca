"""Learning rates against the published schedules; groups, decay and clipping of the optimiser."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hamjepa_jax import build
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.workdirs import read_networks
from hamjepa_jax.train import train
from hamjepa_jax.training.mesh import make_mesh
from hamjepa_jax.training.optimizer import Rule, by_groups, cosine_between, warmup_cosine

KEY = re.compile(r"epochs(\d+)/spe(\d+)/warmup(\d+)/minratio([\d.]+)/lr([\d.]+)")


def test_schedule_goldens(goldens):
    golden = goldens("schedule")
    assert len(golden) == 3
    for key, want in golden.items():
        epochs, per_epoch, warmup, final, lr = map(float, KEY.fullmatch(key).groups())
        schedule = warmup_cosine(
            lr, warmup_steps=int(warmup * per_epoch), total_steps=int(epochs * per_epoch), start=0.01, final=final
        )
        np.testing.assert_allclose(jax.vmap(schedule)(jnp.arange(len(want))), want, rtol=0, atol=1e-9)


def optimiser(clip_norm=None, **schedules):
    return by_groups(Rule("adamw", weight_decay=0.1), schedules, clip_norm=clip_norm)


def test_groups_have_their_own_learning_rates_and_everything_decays():
    optimizer = optimiser(a=optax.constant_schedule(0.1), b=optax.constant_schedule(0.01))
    params = {"a": {"w": jnp.ones(3), "bias": jnp.ones(1)}, "b": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    # No gradient: only the decoupled decay, −lr·0.1·w, on biases too.
    np.testing.assert_allclose(updates["a"]["w"], -0.01, rtol=1e-6)
    np.testing.assert_allclose(updates["a"]["bias"], -0.01, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -0.001, rtol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_clipping_is_by_the_norm_over_all_groups(clip_norm):
    schedule = optax.constant_schedule(1.0)
    optimizer = optimiser(clip_norm, a=schedule, b=schedule)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state = optimizer.init(params)
    gradient = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    _, state = optimizer.update(gradient, state, params)
    moments = [x for x in jax.tree.leaves(state) if x.shape == (1,)]
    scale = 1.0 if clip_norm is None else 0.2  # norm 5 -> 1
    np.testing.assert_allclose(sorted(float(m[0]) for m in moments)[-2:], [0.3 * scale, 0.4 * scale], rtol=1e-5)


# -- Optimisers by name, each against its step in NumPy ------

LR, DECAY, MOMENTUM = 0.05, 0.1, 0.9
NAMES = ("adamw", "lars", "sgd", "muon")


def parameters(seed):
    """A kernel, one of a convolution, a norm's scale, a bias, a token and a position embedding."""
    rng = np.random.default_rng(seed)
    shapes = {
        "dense": {"kernel": (4, 6), "bias": (6,)},
        "conv": {"kernel": (3, 3, 2, 5)},
        "norm": {"scale": (5,)},
        "embeddings": {"cls_token": (1, 1, 4), "pos_embed": (1, 9, 4)},
    }
    return jax.tree.map(lambda s: rng.normal(size=s), shapes, is_leaf=lambda s: isinstance(s, tuple))


def is_kernel(path):
    return path[-1] == "kernel"


def muon_direction(m):
    """Five Newton–Schulz steps of the quintic with Jordan's coefficients, in update size like Adam's."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = m.reshape(-1, m.shape[-1])
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = (x.T if tall else x) * 0.2 * np.sqrt(max(m.size // m.shape[-1], m.shape[-1]))
    return x.reshape(m.shape)


def numpy_run(name, params, gradients, *, masked, decays):
    """Parameters after the gradients, array by array."""
    after = {}
    for path, w in flat(params).items():
        w, m, v = w.copy(), np.zeros_like(w), np.zeros_like(w)
        spared = masked and not is_kernel(path)
        for t, (gradient, decay) in enumerate(zip(gradients, decays, strict=True), 1):
            g, decay = flat(gradient)[path], 0.0 if spared else decay
            if name == "sgd":
                m = MOMENTUM * m + g + decay * w
                w = w - LR * m
            elif name == "lars":
                u = g + decay * w
                m = MOMENTUM * m + (u if spared else u * 0.001 * np.linalg.norm(w) / np.linalg.norm(u))
                w = w - LR * m
            elif name == "muon" and is_kernel(path):
                m = MOMENTUM * m + (1 - MOMENTUM) * g
                ahead = MOMENTUM * m / (1 - MOMENTUM ** (t + 1)) + (1 - MOMENTUM) * g / (1 - MOMENTUM**t)
                w = w - LR * (muon_direction(ahead) + decay * w)
            else:
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                mean = m / (1 - 0.9**t)
                if name == "muon":  # With Nesterov's momentum, as in optax.
                    mean = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
                w = w - LR * (mean / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + decay * w)
        after[path] = w
    return after


def flat(tree, prefix=()):
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for name, sub in tree.items() for k, v in flat(sub, (*prefix, name)).items()}


def run(optimizer, params, gradients):
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = step(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_an_optimiser_steps_as_written_out(name, masked, x64):
    params, gradients = {"encoder": parameters(0)}, [{"encoder": parameters(i)} for i in (1, 2, 3)]
    total = 3
    decays = [DECAY + (0.4 - DECAY) * (1 - np.cos(np.pi * t / total)) / 2 for t in range(total)]
    rule = Rule(name, cosine_between(DECAY, 0.4, total), momentum=MOMENTUM, decay_mask=masked)
    optimizer = by_groups(rule, {"encoder": optax.constant_schedule(LR)}, clip_norm=None)
    got = run(optimizer, jax.tree.map(jnp.asarray, params), gradients)
    want = numpy_run(name, params["encoder"], [g["encoder"] for g in gradients], masked=masked, decays=decays)
    for path, w in want.items():
        np.testing.assert_allclose(flat(got["encoder"])[path], w, rtol=1e-6, atol=1e-8, err_msg=str(path))


def test_a_step_of_muon_makes_kernels_nearly_orthogonal():
    """The property that the method is named for; singular values of a step lie within the quintic's known band."""
    rule = Rule("muon", 0.0)
    optimizer = by_groups(rule, {"a": optax.constant_schedule(1.0)}, clip_norm=None)
    params = {"a": {"kernel": jnp.zeros((8, 16))}}
    gradient = jax.tree.map(lambda x: jax.random.normal(jax.random.key(0), x.shape), params)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    values = np.linalg.svd(np.asarray(updates["a"]["kernel"]), compute_uv=False) / (0.2 * np.sqrt(16))
    assert values.min() > 0.6 and values.max() < 1.25


def test_the_default_is_optax_s_adamw_with_the_same_state():
    """Workdirs written before go on: the state has the same tree."""
    schedule = optax.constant_schedule(LR)
    params = {"encoder": jax.tree.map(jnp.asarray, parameters(0))}
    ours = by_groups(Rule("adamw", DECAY), {"encoder": schedule}, clip_norm=None).init(params)
    inner = optax.adamw(schedule, weight_decay=DECAY).init(params)
    assert jax.tree.structure(ours.inner_states["encoder"].inner_state) == jax.tree.structure(inner)


@pytest.mark.slow
@pytest.mark.parametrize(
    "trunk, factors",
    [
        ("resnet18", {"stem_conv": 0.125, "stem_bn": 0.125, "layer1_0": 0.25, "layer1_1": 0.25, "layer2_0": 0.5}),
        ("vit_tiny", {"patch_embed": 0.125, "pos_embed": 0.125, "blocks_0": 0.25, "blocks_1": 0.5, "norm": 1.0}),
    ],
)
def test_layers_near_the_image_learn_more_slowly(trunk, factors, tiny_config):
    config = tiny_config
    config.encoder.trunk, config.optimizer.layer_decay, config.optimizer.clip_norm = trunk, 0.5, None
    vit = config.encoder.vit
    vit.patch, vit.image_size, vit.dim, vit.depth, vit.heads = 2, 8, 8, 2, 2
    params = jax.eval_shape(lambda: build.build_model(config).init(jax.random.key(0))[0])
    found = build.learning_rate_factors(config)(params)
    for name, factor in factors.items():
        assert set(jax.tree.leaves(found["encoder"]["trunk"][name])) == {factor}, name
    assert set(jax.tree.leaves((found["encoder"]["token_conv"], found["predictor"]))) == {1.0}
    ones = jax.tree.map(jnp.ones_like, params)
    for decay in (0.5, 1.0):  # A step of the whole optimiser is scaled by the factor, decay and all.
        config.optimizer.layer_decay = decay
        schedules = build.build_schedules(config, 10)
        optimizer = build.build_optimizer(config, schedules)
        updates, _ = optimizer.update(ones, optimizer.init(ones), ones)
        step = {k: float(jax.tree.leaves(updates["encoder"]["trunk"][k])[0].ravel()[0]) for k in factors}
        if decay == 0.5:
            scaled = step
    assert {k: pytest.approx(step[k] * factor) for k, factor in factors.items()} == scaled


def test_settings_that_cannot_work_are_refused(quick_config):
    quick_config.optimizer.layer_decay = 0.5
    with pytest.raises(UserError, match=r"optimizer\.layer_decay 0\.5: encoder\.trunk='one_conv' states no order"):
        build.check(quick_config)
    quick_config.optimizer.layer_decay = 1.0
    quick_config.optimizer.name = "lamb"
    with pytest.raises(UserError, match=r"optimizer\.name 'lamb': must be one of adamw, lars, sgd, muon"):
        build.check(quick_config)


def test_the_weight_decay_follows_its_schedule(quick_config):
    config = quick_config
    assert build.build_weight_decay(config, 6) == config.optimizer.weight_decay
    config.optimizer.weight_decay, config.optimizer.weight_decay_final = 0.04, 0.4
    schedule, total = build.build_weight_decay(config, 6), config.train.epochs * 6
    np.testing.assert_allclose([schedule(t) for t in (0, total // 2, total)], [0.04, 0.22, 0.4], rtol=1e-6)
    training = build.build_training(config, build.build_model(config), 96, make_mesh(devices=jax.devices()[:1]))
    params = training.init(jax.random.key(0)).params
    zero, state = jax.tree.map(jnp.zeros_like, params), training.optimizer.init(params)
    rates = []
    for _ in range(3):  # Without gradients the steps are −lr·decay·w, so their ratio to lr·w is the decay.
        updates, state = training.optimizer.update(zero, state, params)
        kernel, step = (t["encoder"]["token_conv"]["kernel"] for t in (params, updates))
        rates.append(float(-(step / kernel).mean()) / float(training.schedules["encoder"](len(rates))))
    np.testing.assert_allclose(rates, [schedule(t) for t in range(3)], rtol=1e-4)


class Stopped(Exception):
    """A run's end before its time."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lars", "sgd", "muon"])
def test_a_run_by_any_optimiser_is_saved_and_goes_on(name, quick_config, tmp_path):
    """On shards of the parameters too, whose optimiser's state has other shapes than theirs."""
    config = quick_config
    config.optimizer.name, config.optimizer.decay_mask, config.optimizer.weight_decay_final = name, True, 0.1
    config.train.steps, config.checkpoint.every, config.mesh.fsdp = 4, "1 steps", 2
    config.evaluate.every, config.evaluate.probe.epochs = "", 0
    train(config, tmp_path / "whole")

    def stop(step, state, metrics):
        if step == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train(config, tmp_path / "halves", callbacks=[stop])
    train(config, tmp_path / "halves")
    one, other = (read_networks(tmp_path / run) for run in ("whole", "halves"))
    assert one.step == other.step == 4
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
