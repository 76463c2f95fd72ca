"""--debug_nans names the module, loss term or gradient where a value first stops being finite."""

import contextlib
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hamjepa_jax import build, objectives
from hamjepa_jax.errors import UserError
from hamjepa_jax.run import nan_search
from hamjepa_jax.run.setup import set_up
from hamjepa_jax.train import train


def locate(config, *, poison=None, make_objective=build.build_objective, spoil=lambda views, batch: views):
    """Where the first step's first value that is not finite is found.

    Args:
      poison: {parameter's path: function of its value}.
      spoil: (views, batch) -> views.
    """
    setup = set_up(config, devices=jax.devices()[:1], objective=make_objective)
    training, opened = setup.training, setup.inputs.open()
    state = jax.jit(training.init)(build.init_key(config))

    def poisoned(path, x):
        change = (poison or {}).get(jax.tree_util.keystr(path, simple=True, separator="/"))
        return x if change is None else change(x)

    state = state.replace(params=jax.tree_util.tree_map_with_path(poisoned, state.params))
    with contextlib.closing(opened.batches(0)) as batches:
        batch = next(batches)

    class Spoiled:
        gaps, labels = setup.inputs.gaps, setup.inputs.labels

        def views(self, store, indices, epoch):
            return spoil(setup.inputs.views(store, indices, epoch), batch == indices[:1])

    return nan_search.make_locator(setup._replace(inputs=Spoiled()))(state, opened.store, batch)


def objective(term):
    """(config, predictor) -> the objective whose loss is term(z), of no parameters of its own."""

    def loss(params, z, draw, epoch):
        return term(z), {"total": term(z), "near": jnp.square(z).mean(), "far": term(z)}

    return lambda config, predictor: objectives.Objective(lambda count: (), 1, loss)


@pytest.fixture
def baseline(tiny_config):
    """LeJEPA without a flow: the quickest to run one operation at a time."""
    tiny_config.objective.name, tiny_config.predictor.kind = "lejepa", "identity"
    return tiny_config


def test_a_parameter(quick_config):
    found = locate(quick_config, poison={"encoder/token_bn/bias": lambda x: x.at[2].set(jnp.nan)})
    assert found.startswith("the parameter encoder/token_bn/bias was so already")


@pytest.mark.slow
def test_an_encoder_s_module_with_finite_inputs(tiny_config):
    found = locate(tiny_config, poison={"encoder/trunk/layer2_0/bn1/scale": lambda x: 3e38 * x})
    assert "came out of encoder/trunk/layer2_0/bn1, whose inputs were finite" in found


@pytest.mark.slow
def test_a_sum_that_a_block_takes_of_its_modules(tiny_config):
    # Both branches are finite.
    large = {name: lambda x: x + 3e38 for name in ("bn2/bias", "downsample_bn/bias")}
    found = locate(tiny_config, poison={f"encoder/trunk/layer2_0/{name}": f for name, f in large.items()})
    assert "came out of encoder/trunk/layer2_0, whose inputs were finite" in found


@pytest.mark.slow
def test_a_layer_of_the_potential_inside_the_flow(tiny_config):
    found = locate(tiny_config, poison={"predictor/mlp/hidden1/dense/kernel": lambda x: 1e38 * x})
    assert "came out of predictor/mlp/hidden1/dense, whose inputs were finite" in found


def test_the_force_of_a_finite_potential():
    # States near zero, so that the potential is finite and its slope, a product of the weights, is not.
    poison = {
        "encoder/token_bn/scale": lambda x: 1e-20 * x,
        "predictor/mlp/hidden0/dense/kernel": lambda x: 1e21 * x,
        "predictor/mlp/output/dense/kernel": lambda x: 1e21 * x,
    }
    found = locate(tiny.quick("hamjepa"), poison=poison)
    assert "was the gradient at the input of predictor/mlp/hidden0/dense in the force" in found


def test_a_loss_term(quick_config):
    found = locate(quick_config, make_objective=objective(lambda z: jnp.log(-jnp.square(z).mean())))
    assert found == "the first value that is not was the loss term far, of finite states"


def test_a_loss_term_s_gradient_alone(quick_config):
    found = locate(quick_config, make_objective=objective(lambda z: jnp.sqrt(jnp.square(z - z).sum())))
    assert (
        found == "the first value that is not was the gradient of the loss term far with respect to finite states"
    )


@pytest.mark.slow
def test_a_gradient_on_its_way_back_through_the_encoder(baseline):
    def steep(z):  # zero, with a slope of 1e37 an entry
        return (1e37 * (z - jax.lax.stop_gradient(z))).sum()

    scale = {"encoder/token_bn/scale": lambda x: 1e5 * x}
    found = locate(baseline, poison=scale, make_objective=objective(steep))
    assert "was the gradient at the input of encoder/token_bn, going backwards" in found


def test_finite_gradients_with_squares_that_overflow(quick_config):
    def steep(z):
        return (1e22 * (z - jax.lax.stop_gradient(z)) * jnp.arange(z.size).reshape(z.shape)).sum()

    found = locate(quick_config, make_objective=objective(steep))
    assert "every gradient is finite, and their squares, the largest of encoder/" in found


@pytest.mark.slow
def test_views_and_micro_batches(baseline):
    baseline.views.num_local, baseline.views.local_size, baseline.train.accumulation = 1, 6, 2
    baseline.encoder.token_hw = 2

    def second(views, first_of_batch):
        """Local views of the second micro-batch only."""
        return views[0], jnp.where(first_of_batch[0], views[1], jnp.nan)

    assert locate(baseline, spoil=second).startswith("the views local have the first value that is not")
    found = locate(baseline, poison={"encoder/trunk/stem_bn/scale": lambda x: 3e38 * x})
    assert "encoder/trunk/stem_bn (global views)" in found


def test_a_finite_step_is_called_finite(quick_config):
    assert locate(quick_config).startswith("one operation at a time it is finite")


def logged(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith("perf/")} for line in lines]


def assert_alike(one, other):
    """Up to rounding: the programs with and without the look at every step are compiled apart."""
    for mine, its in zip(logged(one), logged(other), strict=True):
        assert mine == pytest.approx(its, rel=1e-5)


class Interrupted(Exception):
    pass


def interrupt_at_four(step, state, metrics):
    if step == 4:  # The checkpoint of step 3 was begun by then, and is waited for.
        raise Interrupted


@pytest.fixture
def four_steps(quick_config):
    quick_config.train.steps, quick_config.evaluate.every, quick_config.evaluate.probe.epochs = 4, "", 0
    return quick_config


def test_a_healthy_run_is_unaffected_and_a_broken_one_named(four_steps, tmp_path):
    config = four_steps
    train(config, tmp_path / "plain")
    train(config, tmp_path / "looked_at", debug_nans=True)
    assert_alike(tmp_path / "plain", tmp_path / "looked_at")

    config.train.steps_per_dispatch = 2
    shutil.rmtree(tmp_path / "looked_at" / "checkpoints" / "4")
    (tmp_path / "looked_at" / "finished").unlink()
    with pytest.raises(UserError, match=r"^train\.steps_per_dispatch 2: does not divide the 1 step.* of step 3"):
        train(config, tmp_path / "looked_at")

    config.optimizer.learning_rate, config.optimizer.clip_norm, config.train.steps_per_dispatch = 1e30, None, 2
    with pytest.raises(UserError, match=r"step 2: total is not finite; the (parameter|first value).*encoder"):
        train(config, tmp_path / "broken", debug_nans=True)
    assert np.isfinite([line["train/total"] for line in logged(tmp_path / "broken")]).all()


@pytest.mark.slow
def test_a_run_that_was_looked_at_may_stand_between_two_dispatches(four_steps, tmp_path):
    config = four_steps
    train(config, tmp_path / "plain")
    config.train.steps_per_dispatch = 2
    with pytest.raises(Interrupted):
        train(config, tmp_path / "odd", debug_nans=True, callbacks=[interrupt_at_four])
    with pytest.raises(
        UserError, match=r"^train\.steps_per_dispatch 2: does not divide the 1 step.* of step 3; set it to 1"
    ):
        train(config, tmp_path / "odd")
    config.train.steps_per_dispatch = 1
    assert train(config, tmp_path / "odd")["step"] == 4
    assert_alike(tmp_path / "plain", tmp_path / "odd")


@pytest.mark.slow
def test_an_objective_s_own_network_and_the_teacher():
    config = tiny.quick("byol")
    config.predictor.kind, config.encoder.projector, config.encoder.projector_dim = "identity", "mlp", 8
    config.encoder.split_qp, config.objective.byol.predictor_hidden = False, 8
    assert "one operation at a time it is finite" in locate(config)
    found = locate(config, poison={"byol/bn/scale": lambda x: jnp.full_like(x, 3e38)})
    assert "came out of byol/bn, whose inputs were finite" in found, found
