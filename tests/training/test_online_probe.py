"""The online probe: the networks do not feel it, and it is trained, saved and measured as they are."""

import contextlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from jax.tree_util import keystr, tree_leaves_with_path

from hamjepa_jax import build
from hamjepa_jax.data import ArraySplit, ShapeSplit, Source, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import Evaluator, open_others
from hamjepa_jax.evaluation import classifier
from hamjepa_jax.nn.sharing import MIN_SHARED
from hamjepa_jax.run.online_probe import online_probe_of
from hamjepa_jax.run.restore import open_checkpoints
from hamjepa_jax.run.seeds import Together
from hamjepa_jax.run.setup import compile_step, set_up
from hamjepa_jax.train import train
from hamjepa_jax.training.mesh import state_sharding
from hamjepa_jax.training.online_probe import OnlineProbe


def config_of(*, on=True, log=False, objective="hamjepa"):
    config = tiny.quick(objective)
    config.evaluate.online_probe.enabled, config.evaluate.online_probe.log = on, log
    return config


def same(a, b):
    for (path, x), (_, y) in zip(tree_leaves_with_path(a), tree_leaves_with_path(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=keystr(path))


class Steps:
    """A config's compiled step with the first batches, and the probe beside it if the config asks for one."""

    def __init__(self, config, devices=1, number=3):
        self.setup = set_up(config, devices=jax.devices()[:devices])
        opened = self.setup.inputs.open()
        with contextlib.closing(opened.batches(0)) as batches:
            self.batches = [next(batches) for _ in range(number)]
        self.store, self.probe = opened.store, online_probe_of(self.setup, together=False)
        self.step = compile_step(self.setup, self.store, self.batches[0], donate=False)

    def start(self):
        state = self.setup.init()
        return state if self.probe is None else state.replace(probe=self.probe.first(self.setup.config))

    def abstract(self):
        return self.setup.abstract.replace(probe=self.probe.abstract)

    def run(self, state, first=0):
        step, states, metrics = self.step if self.probe is None else self.probe.step(self.step), [], []
        for batch in self.batches[first:]:
            state = state.replace(probe=jax.tree.map(jnp.copy, state.probe))  # It is given away.
            state, found = step(state, self.store, batch)
            states.append(state)
            metrics.append(found)
        return states, metrics


@pytest.fixture(scope="module")
def probed():
    """(steps, the states after three steps, their metrics) of a run with a probe."""
    steps = Steps(config_of(log=True))
    return steps, *steps.run(steps.start())


def operations(program):
    """The lines of a compiled program without what tells of the source code."""
    lines = (re.sub(r",? metadata=\{[^}]*\}", "", line) for line in program.as_text().splitlines())
    return [line for line in lines if " = " in line]


@pytest.mark.parametrize("devices", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 8))])
def test_networks_and_metrics_are_the_same_bits_with_and_without_it(devices):
    (probed, states), (bare, without) = [
        (steps, steps.run(steps.start()))
        for steps in (Steps(config_of(on=on, log=True, objective="lejepa"), devices) for on in (True, False))
    ]
    assert operations(probed.step.program) == operations(bare.step.program)
    assert bare.probe is None and probed.probe is not None
    for state, other in zip(states[0], without[0], strict=True):
        same(state.replace(probe=None), other)
        assert state.probe is not None and other.probe is None
    for found, other in zip(states[1], without[1], strict=True):
        names = {f"online_probe_{name}_{kind}" for name in ("q", "p", "qp") for kind in ("loss", "top1")}
        assert set(found) - set(other) == names
        same({name: found[name] for name in other}, other)


def test_its_loss_and_step_are_those_of_the_frozen_features_and_labels(probed):
    steps, states, metrics = probed
    setup, rows = steps.setup, np.asarray(steps.batches[0])
    h = Evaluator(setup.config, setup.model, setup.source, setup.mesh).features(states[0])[0][rows]
    x = h[:, : h.shape[1] // 2].astype(np.float64)  # q
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    labels = setup.source.train.labels[rows]
    before = steps.probe.first(setup.config)["params"]["q"]
    params = {name: np.asarray(a, np.float64) for name, a in before.items()}
    scores = x @ params["weight"] + params["bias"]
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(len(rows)), labels].mean()
    np.testing.assert_allclose(metrics[0]["online_probe_q_loss"], loss, rtol=1e-5)
    right = (scores.argmax(axis=1) == labels).mean()
    np.testing.assert_allclose(metrics[0]["online_probe_q_top1"], right, atol=1e-6)
    # Adam's first step has the size of the learning rate, against the gradient's sign.
    error = np.exp(log_p) - np.eye(scores.shape[1])[labels]
    moved = np.asarray(states[0].probe["params"]["q"]["bias"]) - params["bias"]
    np.testing.assert_allclose(moved, -1e-3 * np.sign(error.mean(axis=0)), rtol=1e-2)


def test_it_learns():
    rng = np.random.default_rng(0)
    centres, labels = rng.normal(size=(4, 16)), jnp.asarray(rng.integers(0, 4, 64))
    z = jnp.asarray(centres[labels] + 0.3 * rng.normal(size=(64, 16)), jnp.float32)
    probe = OnlineProbe(4, True, optax.adamw(1e-2))
    state, step = probe.init(jax.random.key(0), 16), jax.jit(probe.step)
    _, first = step(state, z, labels)
    for _ in range(100):
        state, metrics = step(state, z, labels)
    assert metrics["online_probe_qp_top1"] == 1 and first["online_probe_qp_top1"] < 0.8
    assert float(classifier.top1(state["params"]["q"], z[:, :8], labels)) > 0.9


def test_it_is_saved_and_goes_on_bit_for_bit(probed, tmp_path):
    steps, states, _ = probed
    with open_checkpoints(steps.setup.config, tmp_path, read_only=False) as checkpoints:
        checkpoints.save(2, states[1], {})
        checkpoints.wait()
        restored = checkpoints.restore(steps.abstract())
        off = checkpoints.restore(steps.setup.abstract)
    same(restored, states[1])
    same(steps.run(restored, first=2)[0][-1], states[2])
    same(off, states[1].replace(probe=None))  # Turned off, the run goes on without it.


def test_a_checkpoint_from_before_goes_on(probed, tmp_path):
    steps, states, _ = probed
    with open_checkpoints(steps.setup.config, tmp_path, read_only=False) as checkpoints:
        checkpoints.save(2, states[1].replace(probe=None), {})
        checkpoints.wait()
        same(checkpoints.restore(steps.abstract()), states[1].replace(probe=None))


def check_log(workdir, steps):
    """The log has the probe at these steps and at evaluations."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {r["step"] for r in records if "train/online_probe_q_loss" in r} == set(steps)
    evaluated = [r for r in records if "eval/q/online_probe_top1" in r]
    assert evaluated and all(0 <= r["eval/qp/online_probe_top1"] <= 1 for r in evaluated)


@pytest.mark.slow
def test_a_run_logs_it(tmp_path):
    config = config_of(log=True, objective="lejepa")
    config.train.epochs, config.evaluate.probe.epochs = 1, 0
    config.evaluate.probes = ("synthetic:40x12",)  # Another source beside it.
    results = train(config, tmp_path / "run")
    check_log(tmp_path / "run", range(1, 7))
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"eval/synthetic/q/knn_top1_k5_cosine_majority"' in log and '"eval/q/knn_top1_k5' in log
    assert results["on synthetic"].keys() == results["trained"].keys()
    assert "q on synthetic" in (tmp_path / "run" / "table.txt").read_text()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "probes",
            ("synthetic:40x12", "synthetic:30x8"),
            r'evaluate\.probes "synthetic:30x8": another one has the name',
        ),
        ("probes", ("small",), r'evaluate\.probes "small": unknown kind; expected one of arrays:'),
        ("probes", ("folder:nowhere",), r'evaluate\.probes "folder:nowhere": '),
        ("source", "arrays:nowhere.npz", r'evaluate\.source "arrays:nowhere\.npz": '),
        ("source", "digits", r'evaluate\.source "digits": has other classes than the training images'),
    ],
)
def test_further_sources_are_checked_before_anything_is_made_or_decoded(field, value, message, tmp_path):
    config = config_of(objective="lejepa")
    config.evaluate[field] = value
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_beside_stacks_of_frames_are_refused():
    config = config_of()
    config.views.stack, config.evaluate.probes = 2, ("digits",)
    with pytest.raises(
        UserError, match=r"views\.stack 2: data\.source 'digits' has images and no clips; choose one"
    ):
        open_others(config, open_source("digits"))


@pytest.mark.slow
def test_a_run_may_begin_it_later(tmp_path):
    """From the checkpoint of a run without one, on another store."""
    workdir = tmp_path / "run"
    for on in (False, True):
        config = config_of(on=on, log=True, objective="lejepa")
        config.train.epochs, config.data.store = 1, "host"
        train(config, workdir)
        kept = sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
        if not on:  # As a run that was stopped half-way.
            (workdir / "checkpoints" / str(kept[-1])).rename(tmp_path / "last")
            (workdir / "metrics.json").unlink()
    check_log(workdir, range(4, 7))


@pytest.mark.parametrize("store", ["device", "host", "stream"])
def test_it_sees_the_images_that_are_evaluated(store, tmp_path):
    config = config_of(objective="lejepa")
    config.data.store, config.data.num_threads = store, 1
    if store == "stream":
        config.data.source = tiny.photographs(tmp_path, train=24, val=2)
    setup = set_up(config, devices=jax.devices()[:1])
    opened = setup.inputs.open()
    with contextlib.closing(opened.batches(0)) as batches:
        batch = next(batches)
    images = np.asarray(jax.jit(setup.inputs.plain)(opened.store, batch))
    index = np.asarray(batch["index"] if isinstance(batch, dict) else batch)
    if store == "stream":
        seen = np.asarray(batch["crops"][0])[:, 0]
    else:
        seen = setup.source.train.images[index]
    np.testing.assert_allclose(images, build.eval_transform(config)(jnp.asarray(seen)), atol=1e-6)  # jit or not
    labels = setup.inputs.labels_of(setup.inputs.all_labels(), batch)
    np.testing.assert_array_equal(labels, setup.source.train.labels[index])


def test_several_steps_of_a_dispatch_are_taken_one_after_the_other(probed):
    steps, _, _ = probed
    config = config_of()
    config.train.steps_per_dispatch = 3
    setup = set_up(config, devices=jax.devices()[:1])
    state, store = setup.init(), steps.store
    whole, single = (online_probe_of(s, together=False) for s in (setup, steps.setup))
    held = single.first(config)
    for batch in steps.batches:
        held = single.step(lambda state, store, batch: (state, {}))(state.replace(probe=held), store, batch)[
            0
        ].probe
    at_once = whole.step(lambda state, store, batch: (state, {}))(
        state.replace(probe=whole.first(config)), store, jnp.stack(steps.batches)
    )[0].probe
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), at_once, held)


def test_it_is_split_as_the_networks_are():
    config = config_of(objective="lejepa")
    config.mesh.fsdp, config.encoder.token_dim = 2, 1024
    setup = set_up(config, devices=jax.devices()[:2])
    probe = online_probe_of(setup, together=False)
    state = setup.abstract.replace(probe=probe.abstract)
    weight = probe.first(config)["params"]["qp"]["weight"]
    assert tuple(weight.sharding.spec) == ("fsdp",) and weight.size >= MIN_SHARED
    assert state_sharding(setup.mesh, state).probe == jax.tree.map(lambda x: x.sharding, probe.abstract)


def test_images_without_labels_are_refused_and_programs_without_images_leave_it_out():
    images, labels = np.zeros((96, 8, 8, 3), np.uint8), np.full(96, -1, np.int32)
    unlabelled = ArraySplit(images, labels, ())
    with pytest.raises(
        UserError, match=r"evaluate\.online_probe\.enabled True: .* have no labels; set it to False"
    ):
        set_up(config_of(), source=Source("x", unlabelled, unlabelled))
    shapes = ShapeSplit(96, 8, 8)
    assert set_up(config_of(), source=Source("x", shapes, shapes)).abstract.probe is None


@pytest.mark.slow
def test_seeds_at_once_have_one_each(probed):
    _, states, _ = probed
    configs = [config_of(log=True), config_of(log=True)]
    configs[1].seed = 1
    setup = set_up(configs[0], devices=jax.devices()[:1])
    members, opened = Together(setup, configs), setup.inputs.open()
    probe = online_probe_of(setup, together=True)
    state = members.joined([setup.first_state(c).replace(probe=probe.first(c)) for c in configs])
    with contextlib.closing(members.batches(opened, 0)) as batches:
        batch = next(batches)
    step = members.compile(state.replace(probe=None), opened.store, batch, donate=False)
    state, metrics = probe.step(step)(state, opened.store, batch)
    assert members.metrics(metrics, 1)["online_probe_q_loss"].shape == ()
    first, second = (members.state(state, i).probe["params"]["q"]["weight"] for i in range(2))
    np.testing.assert_allclose(first, states[0].probe["params"]["q"]["weight"], atol=1e-5)
    assert np.abs(np.asarray(first - second)).max() > 1e-3


@pytest.mark.slow
def test_a_search_for_bad_numbers_works_beside_it(tmp_path):
    config = config_of(objective="lejepa")
    config.optimizer.learning_rate, config.optimizer.warmup = 1e30, "1 steps"
    with pytest.raises(UserError, match="is not finite"):
        train(config, tmp_path / "run", debug_nans=True)
