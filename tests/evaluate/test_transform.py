"""The map z -> H^{1/2}z that --metric names."""

import jax
import numpy as np
import pytest

from hamjepa_jax import build, objectives, parts
from hamjepa_jax.config.default import values_of
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate.transform import geometry_map
from hamjepa_jax.training.mesh import make_mesh


def states(config):
    return jax.random.normal(jax.random.key(0), (5, build.embed_dim(config)))


def hamsigreg_config(config, kind, split):
    config.objective.name, config.objective.hamsigreg.kind = "hamsigreg", kind
    config.predictor.kind, config.encoder.split_qp = "identity", split
    return config


def test_a_learned_geometry_is_that_of_the_checkpoint(tiny_config):
    config = hamsigreg_config(tiny_config, "learnable", split=False)
    learned = config.objective.hamsigreg.learnable
    learned.alpha_start, learned.alpha_ramp = 0.0, 4.0
    training = build.build_training(config, build.build_model(config), 96, make_mesh())
    state = training.init(build.init_key(config))
    raw = jax.tree.map(lambda x: x + 0.7, state.params[objectives.SPECTRUM])
    state = state.replace(params=state.params | {objectives.SPECTRUM: raw})
    z, (rows, columns) = states(config), build.token_grid(config)
    expected = objectives.ham_transform(
        z,
        "learnable",
        **raw,
        h=rows,
        w=columns,
        d_f=config.encoder.token_dim,
        bins=learned.bins,
        span_max=learned.span_max,
        init_loglambda_span=learned.init_loglambda_span,
        alpha_init=0.5,  # half way up the ramp at epoch 2
        **learned.shape,
    )
    np.testing.assert_allclose(geometry_map(config, "trained", state, 2)(z), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("split", [False, True])
def test_a_fixed_geometry_is_the_objectives(split, tiny_config):
    config = hamsigreg_config(tiny_config, "chain", split)
    z = states(config)
    _, values = values_of(config, parts.objectives, "hamsigreg")
    fixed = objectives.ham_geometry(values, build.state_grid(config))
    trained = geometry_map(config, "trained", None, 1)(z)
    np.testing.assert_allclose(trained, fixed(z), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(geometry_map(config, "chain", None, 1)(z), trained, rtol=1e-5, atol=1e-6)
    other = geometry_map(config, "chain:mode=1d,kappa=2,beta=1", None, 1)(z)
    options = dict(mode="1d", kappa=2.0, eps=config.objective.hamsigreg.chain.eps, beta=1.0, normalize="trace")
    np.testing.assert_allclose(other, objectives.ham_transform(z, "chain", **options), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        geometry_map(config, "diag", None, 1)(z), objectives.ham_transform(z, "diag"), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("text", ["trained", "round", "diag:beta=1", "chain:gamma=1", "chain:kappa=-1"])
def test_a_geometry_that_does_not_exist_is_refused(text, tiny_config):
    with pytest.raises(UserError):
        geometry_map(tiny_config, text, None, 1)
