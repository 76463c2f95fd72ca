"""A trained run is looked at whatever objective it was trained with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax import evaluate as evaluate_lib
from hamjepa_jax import objectives, rng
from hamjepa_jax.errors import UserError
from hamjepa_jax.run.restore import load_run
from hamjepa_jax.run.workdir import saved_config
from hamjepa_jax.train import train


def scattering(config, predictor):
    """An objective with random projections of its own form."""

    def loss(params, z, directions, epoch):
        apart = jnp.exp(-jnp.var(z @ directions["own"], axis=1).mean())
        return apart, {"total": apart}

    def draw(count):
        return {"own": objectives.unit_directions(rng.stream(0, "own", count), 64, 8)}

    return objectives.Objective(draw, 1, loss)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    import tiny

    config, workdir, seen = tiny.quick("hamjepa"), tmp_path_factory.mktemp("custom"), []
    config.train.steps, config.evaluate.every, config.evaluate.probe.epochs = 3, "", 0

    def callback(step, state, metrics):
        seen.append(jax.device_get(state.params))

    result = train(config, workdir, objective=scattering, callbacks=[callback])
    return workdir, result, seen[-1]


def test_a_run_with_an_objective_of_one_s_own_is_evaluated(trained):
    workdir, result, params = trained
    run = load_run(workdir)
    assert int(run.state.step) == 3 and run.state.opt_state is None
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.state.params), params)
    assert evaluate_lib.evaluate(saved_config(workdir), workdir) == result


def test_networks_of_another_config_are_refused(trained):
    workdir, *_ = trained
    config = saved_config(workdir).copy_and_resolve_references()
    config.predictor.hidden = 8
    with pytest.raises(UserError, match="the predictor saved there is not the config's"):
        load_run(workdir, config=config)
