"""The online probe: the networks do not feel it, and it is trained, saved and measured as they are."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from jax.tree_util import keystr, tree_leaves_with_path

from hamjepa_jax import build
from hamjepa_jax.data import ArraySplit, ShapeSplit, Source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluation import classifier
from hamjepa_jax.run.inputs import Labelled
from hamjepa_jax.run.restore import open_checkpoints
from hamjepa_jax.run.seeds import Together
from hamjepa_jax.run.setup import compile_step, set_up
from hamjepa_jax.train import train
from hamjepa_jax.training.mesh import make_mesh, parameters_sharded, state_sharding
from hamjepa_jax.training.online_probe import OnlineProbe


def config_of(*, on=True, log=False, objective="hamjepa"):
    config = tiny.quick(objective)
    config.evaluate.online_probe.enabled, config.evaluate.online_probe.log = on, log
    return config


def same(a, b):
    for (path, x), (_, y) in zip(tree_leaves_with_path(a), tree_leaves_with_path(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=keystr(path))


class Steps:
    """A config's compiled step with the first batches."""

    def __init__(self, config, devices=1, number=3):
        self.setup = set_up(config, devices=jax.devices()[:devices])
        opened = self.setup.inputs.open()
        with contextlib.closing(opened.batches(0)) as batches:
            self.batches = [next(batches) for _ in range(number)]
        self.store = opened.store
        self.step = compile_step(self.setup, self.store, self.batches[0], donate=False)

    def run(self, state, first=0):
        states, metrics = [], []
        for batch in self.batches[first:]:
            state, found = self.step(state, self.store, batch)
            states.append(state)
            metrics.append(found)
        return states, metrics


@pytest.fixture(scope="module")
def probed():
    """(steps, the states after three steps, their metrics) of a run with a probe."""
    steps = Steps(config_of(log=True))
    return steps, *steps.run(steps.setup.init())


def compare_without(steps, states, metrics, devices):
    bare = Steps(config_of(on=False), devices)
    without, metrics_without = bare.run(bare.setup.init())
    for state, other in zip(states, without, strict=True):
        same(state.replace(probe=None), other)
    for found, other in zip(metrics, metrics_without, strict=True):
        assert set(found) - set(other) == {
            f"online_probe_{name}_{kind}" for name in ("q", "p", "qp") for kind in ("loss", "top1")
        }
        same({name: found[name] for name in other}, other)


def test_networks_and_metrics_are_the_same_bits_with_and_without_it(probed):
    compare_without(*probed, devices=1)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [2, 8])
def test_the_same_on_several_devices(devices):
    steps = Steps(config_of(log=True), devices)
    compare_without(steps, *steps.run(steps.setup.init()), devices)


def test_its_first_loss_and_step_are_those_of_the_embeddings_and_labels(probed):
    steps, states, metrics = probed
    setup, start, batch = steps.setup, steps.setup.init(), steps.batches[0]
    (views,) = setup.inputs.views(steps.store, batch, jnp.int32(0))
    b, v = views.shape[:2]
    (h, _), _ = jax.jit(setup.model.embed)(start.params, start.batch_stats, views.reshape(b * v, *views.shape[2:]))
    x = np.asarray(h, np.float64)[:, : h.shape[1] // 2]  # q
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    labels = np.repeat(setup.source.train.labels[np.asarray(batch)], v)
    params = {name: np.asarray(a, np.float64) for name, a in start.probe["params"]["q"].items()}
    scores = x @ params["weight"] + params["bias"]
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(
        metrics[0]["online_probe_q_loss"], -log_p[np.arange(b * v), labels].mean(), rtol=1e-4
    )
    right = (scores.argmax(axis=1) == labels).mean()
    np.testing.assert_allclose(metrics[0]["online_probe_q_top1"], right, atol=1e-6)
    # Adam's first step has the size of the learning rate, against the gradient's sign.
    error = np.exp(log_p) - np.eye(scores.shape[1])[labels]
    moved = np.asarray(states[0].probe["params"]["q"]["bias"]) - params["bias"]
    np.testing.assert_allclose(moved, -1e-3 * np.sign(error.mean(axis=0)), rtol=1e-2)


def test_it_learns_and_stops_where_it_is():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 16))
    labels = jnp.asarray(rng.integers(0, 4, 64))
    h = jnp.asarray(centres[labels] + 0.3 * rng.normal(size=(2, 64, 16)), jnp.float32)
    probe = OnlineProbe(4, True, False, optax.adamw(1e-2), logged=True)
    state = probe.init(jax.random.key(0), 16)

    @jax.jit
    def step(state):
        gradient, metrics = probe.gradients(state["params"], h, labels)
        return probe.updated(state, gradient), metrics

    first = step(state)[1]
    for _ in range(100):
        state, metrics = step(state)
    assert metrics["online_probe_qp_top1"] == 1 and first["online_probe_qp_top1"] < 0.8
    assert float(classifier.top1(state["params"]["q"], h[0, :, :8], labels)) > 0.9


def test_it_is_saved_and_goes_on_bit_for_bit(probed, tmp_path):
    steps, states, _ = probed
    with open_checkpoints(steps.setup.config, tmp_path, read_only=False) as checkpoints:
        checkpoints.save(2, states[1], {})
        checkpoints.wait()
        restored = checkpoints.restore(steps.setup.abstract)
        off = checkpoints.restore(steps.setup.abstract.replace(probe=None))
    same(restored, states[1])
    same(steps.run(restored, first=2)[0][-1], states[2])
    same(off, states[1].replace(probe=None))  # Turned off, the run goes on without it.


def test_a_checkpoint_from_before_goes_on(probed, tmp_path):
    steps, states, _ = probed
    with open_checkpoints(steps.setup.config, tmp_path, read_only=False) as checkpoints:
        checkpoints.save(2, states[1].replace(probe=None), {})
        checkpoints.wait()
        same(checkpoints.restore(steps.setup.abstract), states[1].replace(probe=None))


def test_a_run_logs_it_and_may_begin_it_later(tmp_path):
    config = config_of(on=False, objective="lejepa")
    config.train.epochs = 1
    config.data.store = "host"
    train(config, tmp_path / "run")
    config = config_of(log=True, objective="lejepa")
    config.data.store, config.train.epochs = "host", 1
    workdir = tmp_path / "run"
    kept = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    for step in kept[1:]:  # As a run that was stopped half-way.
        (workdir / "checkpoints" / str(step)).rename(tmp_path / f"{step}")
    (workdir / "metrics.json").unlink()
    train(config, workdir)
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    logged = {r["step"] for r in records if "train/online_probe_q_loss" in r}
    assert logged == set(range(kept[0] + 1, 7))
    evaluated = [r for r in records if "eval/q/online_probe_top1" in r]
    assert evaluated and all(0 <= r["eval/qp/online_probe_top1"] <= 1 for r in evaluated)


def test_without_it_the_program_is_the_same_whatever_its_settings():
    def program(config):
        setup = set_up(config, devices=jax.devices()[:1])
        store, batch = setup.inputs.abstract()
        assert setup.abstract.probe is None and not isinstance(store, Labelled)
        return str(jax.make_jaxpr(setup.training.step)(setup.abstract, store, batch))

    other = config_of(on=False, log=True, objective="lejepa")
    other.evaluate.online_probe.learning_rate = 0.5
    assert program(config_of(on=False, objective="lejepa")) == program(other)


@pytest.mark.parametrize(("store", "k", "accumulation"), [("host", 2, 1), ("device", 1, 2)])
def test_micro_batches_dispatches_and_stores_keep_its_form(store, k, accumulation):
    config = config_of(log=True, objective="lejepa")
    config.data.store, config.train.steps_per_dispatch, config.train.accumulation = store, k, accumulation
    setup = set_up(config, devices=jax.devices()[:1])
    state, metrics = jax.eval_shape(setup.training.step, setup.abstract, *setup.inputs.abstract())
    shapes = (jax.tree.map(lambda x: (x.shape, x.dtype), s.probe) for s in (state, setup.abstract))
    assert next(shapes) == next(shapes)
    assert metrics["online_probe_q_loss"].shape == (() if k == 1 else (k,))


def test_it_is_split_as_the_networks_are():
    config = config_of(objective="lejepa")
    setup = set_up(config, devices=jax.devices()[:1])
    mesh = make_mesh(fsdp=2, devices=jax.devices()[:2])
    weight = jax.ShapeDtypeStruct((256, 128), jnp.float32)
    state = setup.abstract.replace(probe={"params": {"q": {"weight": weight}}})
    assert state_sharding(mesh, state).probe == parameters_sharded(mesh, state.probe)
    assert state_sharding(mesh, state).probe["params"]["q"]["weight"].spec == ("fsdp",)


def test_images_without_labels_and_programs_without_images_are_refused():
    images, labels = np.zeros((96, 8, 8, 3), np.uint8), np.full(96, -1, np.int32)
    unlabelled = ArraySplit(images, labels, ())
    for split in (unlabelled, ShapeSplit(96, 8, 8)):
        with pytest.raises(UserError, match=r"evaluate\.online_probe\.enabled True: .* set it to False"):
            set_up(config_of(), source=Source("x", split, split))
    config = config_of(objective="lejepa")
    masked = build.build_objective(config, build.build_predictor(config))
    masked = masked._replace(wide=build.objectives.Wide(keep=lambda draw: jnp.arange(2)))
    with pytest.raises(UserError, match=r"evaluate\.online_probe\.enabled True: the objective shows .* a part"):
        set_up(config, objective=lambda config, predictor: masked)


@pytest.mark.slow
def test_seeds_at_once_have_one_each(probed):
    steps, states, _ = probed
    configs = [config_of(log=True), config_of(log=True)]
    configs[1].seed = 1
    setup = set_up(configs[0], devices=jax.devices()[:1])
    members, opened = Together(setup, configs), setup.inputs.open()
    state = members.joined([setup.first_state(config) for config in configs])
    with contextlib.closing(members.batches(opened, 0)) as batches:
        batch = next(batches)
    state, _ = members.compile(state, opened.store, batch, donate=False)(state, opened.store, batch)
    first, second = (members.state(state, i).probe["params"]["q"]["weight"] for i in range(2))
    np.testing.assert_allclose(first, states[0].probe["params"]["q"]["weight"], atol=1e-5)
    assert np.abs(np.asarray(first - second)).max() > 1e-3


@pytest.mark.slow
def test_a_search_for_bad_numbers_works_beside_it(tmp_path):
    config = config_of(objective="lejepa")
    config.optimizer.learning_rate, config.optimizer.warmup = 1e30, "1 steps"
    with pytest.raises(UserError, match="is not finite"):
        train(config, tmp_path / "run", debug_nans=True)
