"""The teacher, and what an objective carries: moved by every step, saved, resumed, split, evaluated."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.tree_util import keystr, tree_leaves_with_path

from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import Evaluator
from hamjepa_jax.objectives import Objective, Teacher, Wide
from hamjepa_jax.run.restore import open_checkpoints, restore_weights
from hamjepa_jax.run.seeds import Together
from hamjepa_jax.run.setup import compile_step, set_up
from hamjepa_jax.training.state import TrainState

OBJECTIVES = (
    "simclr", "byol", "barlow_twins", "alignment_uniformity", "simdino", "mcr2", "kerjepa", "lejepa", "vicreg",
    "i_jepa",
)  # fmt: skip


def masked():
    """The config of masked prediction: a narrow transformer on 4×4 patches of 2×2 pixels."""
    config = tiny.quick("i_jepa")
    config.predictor.kind, config.encoder.split_qp, config.encoder.trunk = "identity", False, "vit_tiny"
    vit = config.encoder.vit
    vit.dim, vit.depth, vit.heads, vit.patch, vit.image_size, vit.class_token = 16, 1, 2, 2, 8, False
    config.encoder.token_dim, config.encoder.token_norm = 16, "layer"
    own = config.objective.i_jepa
    own.predictor_dim, own.predictor_depth, own.predictor_heads, own.block_share, own.num_blocks = 16, 1, 2, 0.25, 2
    return config


def config_of(name):
    if name == "i_jepa":
        return masked()
    config = tiny.quick(name)
    config.predictor.kind, config.encoder.projector, config.encoder.projector_dim = "identity", "mlp", 32
    config.encoder.split_qp = False
    config.objective.byol.predictor_hidden = 16
    config.objective.barlow_twins.redundancy_weight = 1.0  # The paper's is for 8192 coordinates.
    return config


class Steps:
    """The first steps of a run."""

    def __init__(self, config, steps, devices=1):
        self.setup = set_up(config, devices=jax.devices()[:devices])
        opened = self.setup.inputs.open()
        with contextlib.closing(opened.batches(0)) as stream:
            self.batches = [next(stream) for _ in range(steps)]
        self.store = opened.store
        self.step = compile_step(self.setup, self.store, self.batches[0], donate=False)

    def run(self, state, first=0, last=None):
        """(the states after each step, their metrics)."""
        states, metrics = [], []
        for batch in self.batches[first:last]:
            state, found = self.step(state, self.store, batch)
            states.append(state)
            metrics.append(found)
        return states, metrics


def same(a, b):
    for (path, x), (_, y) in zip(tree_leaves_with_path(a), tree_leaves_with_path(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=keystr(path))


@pytest.fixture(scope="module")
def byol():
    """(steps, the first state, the states after three steps)."""
    steps = Steps(config_of("byol"), 3)
    start = steps.setup.init()
    return steps, start, steps.run(start)[0]


def test_the_teacher_begins_as_a_copy_and_moves_by_its_momentum(byol):
    steps, start, states = byol
    assert set(start.teacher["params"]) == {"encoder", "projector"}
    same(start.teacher["params"], {name: start.params[name] for name in ("encoder", "projector")})
    before = start
    for number, after in enumerate(states, 1):
        m = 1 - (1 - 0.996) * (np.cos(np.pi * number / steps.setup.training.total_steps) + 1) / 2
        for group, tree in after.teacher["params"].items():
            expected = jax.tree.map(
                lambda t, p: m * t + (1 - m) * p, before.teacher["params"][group], after.params[group]
            )
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8), tree, expected)
        before = after
    moved = states[-1].teacher["batch_stats"]["projector"]["bn"]["mean"]
    assert np.abs(moved).max() > 0 and np.abs(states[-1].carried["bn"]["mean"]).max() > 0


def test_without_a_teacher_there_is_none(tmp_path):
    setup = set_up(config_of("lejepa"), devices=jax.devices()[:1])
    assert setup.abstract.teacher is None and setup.abstract.carried is None
    config = config_of("lejepa")
    config.evaluate.teacher = True
    with pytest.raises(UserError, match=r"evaluate\.teacher True: the objective has no teacher; set it to False"):
        set_up(config)
    # A trained run is looked at whatever its objective was, as `train(objective=…)` may have had a teacher.
    assert set_up(config, training=False).abstract.teacher is None
    with pytest.raises(UserError, match=r"evaluate\.teacher True: the run's objective has no teacher"):
        TrainState(0, {}, {}, None, None).evaluated(teacher=True)


def wide(**options):
    """An objective of a program's own, as `train(objective=…)` takes it."""

    def objective(config, predictor):
        def loss(params, seen, draw, epoch):
            error = jnp.square(seen.z[0] - seen.teacher.z[1]).mean()
            return error, {"pred": error}, ()

        asked = Wide(Teacher(lambda share: 0.9), **options)
        return Objective(lambda count: (), 1, loss, wide=asked)

    return objective


def test_the_teacher_of_an_objective_that_is_given_can_be_evaluated():
    config = tiny.quick()
    config.evaluate.teacher = True
    assert set(set_up(config, objective=wide()).abstract.teacher["params"]) == {"encoder"}


def test_tokens_can_be_left_out_by_encoders_alone_that_can():
    objective = wide(keep=lambda draw: jnp.arange(3))
    assert set_up(masked(), objective=objective).abstract.teacher
    pooled, of_convolutions = masked(), tiny.quick()
    pooled.encoder.token_hw = 2
    for config in (pooled, of_convolutions):
        with pytest.raises(UserError, match=r"objective\.name: the objective shows the encoder some of the tokens"):
            set_up(config, objective=objective)


def test_an_objective_s_own_parameters_have_a_name_of_their_own():
    objective = Objective(lambda count: (), 1, lambda *a: None, init=lambda: {})
    with pytest.raises(UserError, match="reads='predictor' is the group of a network"):
        set_up(tiny.quick(), objective=lambda config, predictor: objective)


def test_an_objective_s_function_must_give_one():
    with pytest.raises(UserError, match="objective=: its function returned NoneType"):
        set_up(tiny.quick(), objective=lambda config, predictor: None)


def test_it_is_saved_and_goes_on_bit_for_bit(byol, tmp_path):
    steps, _, states = byol
    with open_checkpoints(steps.setup.config, tmp_path, read_only=False) as checkpoints:
        checkpoints.save(2, states[1], {})
        checkpoints.wait()
        restored = checkpoints.restore(steps.setup.abstract)
        weights = restore_weights(checkpoints, steps.setup.abstract, steps.setup.mesh)
    same(restored, states[1])
    same(steps.run(restored, first=2)[0][-1], states[2])
    same(weights.teacher, states[1].teacher)


def test_the_teacher_is_evaluated_where_asked(byol):
    steps, _, states = byol
    setup, state = steps.setup, states[-1]
    config = setup.config.copy_and_resolve_references()
    config.evaluate.teacher = True
    features = [
        Evaluator(c, setup.model, setup.source, setup.mesh).features(state)[1] for c in (config, setup.config)
    ]
    teachers = state.replace(
        params=state.params | state.teacher["params"], batch_stats=state.teacher["batch_stats"]
    )
    expected = Evaluator(setup.config, setup.model, setup.source, setup.mesh).features(teachers)[1]
    np.testing.assert_array_equal(features[0], expected)
    assert np.abs(features[0] - features[1]).max() > 0


def test_micro_batches_carry_on_what_each_left():
    config = config_of("byol")
    config.train.accumulation, config.optimizer.learning_rate = 2, 0.0
    steps = Steps(config, 1)
    start = steps.setup.init()
    after = steps.run(start)[0][0]
    # The teacher is a copy still, and both have seen the same two micro-batches.
    for a, b in zip(jax.tree.leaves(after.teacher["batch_stats"]), jax.tree.leaves(after.batch_stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert np.abs(after.batch_stats["projector"]["bn"]["mean"]).max() > 0
    assert np.abs(after.carried["bn"]["mean"]).max() > 0


@pytest.mark.slow
def test_fsdp_splits_the_teacher_and_changes_no_number():
    losses = []
    for fsdp in (1, 4):
        config = config_of("byol")
        config.encoder.projector_hidden, config.mesh.fsdp = 512, fsdp
        steps = Steps(config, 3, devices=8)
        states, metrics = steps.run(steps.setup.init())
        losses.append([float(m["total"]) for m in metrics])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    kernel = states[-1].teacher["params"]["projector"]["hidden"]["dense"]["kernel"]
    assert not kernel.sharding.is_fully_replicated


@pytest.mark.slow
def test_seeds_that_train_together_have_own_networks_of_their_own():
    configs = [config_of("byol") for _ in range(2)]
    configs[1].seed = 1
    setup = set_up(configs[0])
    members = Together(setup, configs)
    state = members.joined([setup.first_state(config) for config in configs])
    opened = setup.inputs.open()
    with contextlib.closing(members.batches(opened, 0)) as stream:
        batch = next(stream)
    state, metrics = members.compile(state, opened.store, batch, donate=False)(state, opened.store, batch)
    kernels = np.asarray(state.params["byol"]["hidden"]["dense"]["kernel"])
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01 and np.isfinite(metrics["total"]).all()


def on_digits(config):
    """200 steps on the embedded digits: (steps, the first state, the states after each step)."""
    config.data.source, config.train.batch_size, config.train.steps = "digits", 64, 200
    config.optimizer.warmup, config.optimizer.learning_rate = "10 steps", 2e-3
    steps = Steps(config, 200)
    start = steps.setup.init()
    states, metrics = steps.run(start)
    assert np.isfinite([float(m["total"]) for m in metrics]).all()
    return steps, start, states


def spread(steps, state):
    """(smallest standard deviation, participation ratio of the correlations) of 64 images' projected embeddings."""
    images = steps.setup.inputs.views(steps.store, steps.batches[0], 0)[0][:, 0]
    z = np.asarray(steps.setup.model.encode(state.params, state.batch_stats, images)[0])
    eigenvalues = np.linalg.eigvalsh(np.corrcoef(z.T))
    return z.std(axis=0).min(), eigenvalues.sum() ** 2 / (eigenvalues**2).sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_resumes_and_does_not_collapse(name, tmp_path):
    """The state of step 100 goes on from its checkpoint with the same bits; the last one's embeddings vary.

    Every one of the 32 coordinates keeps half of the smallest spread at the start, in more than three directions.
    """
    steps, start, states = on_digits(config_of(name))
    with open_checkpoints(steps.setup.config, tmp_path, read_only=False) as checkpoints:
        checkpoints.save(100, states[99], {})
        checkpoints.wait()
        restored = checkpoints.restore(steps.setup.abstract)
    same(steps.run(restored, first=100, last=105)[0][-1], states[104])
    (at_start, _), (smallest, participation) = spread(steps, start), spread(steps, states[-1])
    print(f"{name}: smallest std {smallest:.3f} (start {at_start:.3f}), participation ratio {participation:.2f}")
    assert smallest > 0.5 * at_start and participation > 3


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["teacher", "encoder"])
def test_masked_prediction_trains_alone_and_on_eight_devices(targets):
    config, found = masked(), []
    config.objective.i_jepa.targets, config.objective.i_jepa.sigreg_weight = targets, 0.05
    for devices in (1, 8):
        steps = Steps(config, 3, devices)
        states, metrics = steps.run(steps.setup.init())
        found.append([(float(m["total"]), float(m["grad_norm"])) for m in metrics])
        if targets == "encoder":  # The teacher of momentum 0 is the encoder.
            same(states[-1].teacher["params"], {"encoder": states[-1].params["encoder"]})
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, weight",
    [("lejepa", "sigreg_weight"), ("simdino", "rate_weight"), ("alignment_uniformity", "uniformity_weight")],
)
def test_a_collapse_would_be_seen(name, weight):
    """Without its term against collapse an objective breaks the bound of the test above."""
    config = config_of(name)
    config.objective[name][weight] = 0.0
    steps, start, states = on_digits(config)
    (at_start, _), (smallest, participation) = spread(steps, start), spread(steps, states[-1])
    print(f"{name}: smallest std {smallest:.3f} (start {at_start:.3f}), participation ratio {participation:.2f}")
    assert smallest < 0.45 * at_start
