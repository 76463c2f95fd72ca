"""What objectives refuse, what they need of a run, and what a run keeps of them."""

import jax
import numpy as np
import pytest
from contexts import context, predictor, values

from hamjepa_jax import nn, objectives, parts
from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives import learned_spectrum


def learnable(**changes):
    defaults = parts.objectives["hamsigreg"].settings.defaults()["learnable"]
    return dict(kind="learnable", learnable=defaults | changes)


G = "objective.hamsigreg."
REFUSED = {
    "energy of an MLP": (
        "hamjepa",
        dict(energy_weight=0.1),
        dict(predictor=nn.mlp_predictor(num_steps=2, hidden=8, depth=1)),
        r"objective\.hamjepa\.energy_weight 0\.1: the predictor has no energy; set it to 0",
    ),
    "subsample": (
        "lejepa",
        dict(subsample=17),
        {},
        r"objective\.lejepa\.subsample 17: a view has 16 examples in a \(micro-\)batch; give at most that.*or None",
    ),
    "subsample of HamSIGReg": ("hamsigreg", dict(subsample=17), {}, r"objective\.lejepa\.subsample 17"),
    "subsample of a learned H": ("hamsigreg", learnable() | dict(subsample=17), {}, r"lejepa\.subsample 17"),
    "learned H without a grid": (
        "hamsigreg",
        learnable(),
        dict(grid=None),
        r"objective\.hamsigreg\.kind 'learnable': .*token grid.*encoder\.mode='token'.*'1d'",
    ),
    "chain without a grid": ("hamsigreg", dict(kind="chain"), dict(grid=None), r"kind 'chain'.*token grid"),
    "one token": (
        "hamsigreg",
        learnable(),
        dict(grid=objectives.Grid(1, 1, 2)),
        r"kind 'learnable': a grid of one token.*encoder\.token_layer",
    ),
    "span": (
        "hamsigreg",
        learnable(init_loglambda_span=0.4),
        {},
        r"objective\.hamsigreg\.learnable\.init_loglambda_span 0\.4: must lie between 0 and span_max 0\.4",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_the_run_is_refused_with_field_and_remedy(case):
    name, given, changes, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as error:
        parts.objectives[name].make(context(**changes), values(name, **given))
    assert "\n" not in str(error.value)


def test_what_needs_no_grid_or_energy_gets_none():
    for kind in ("identity", "diag"):
        objectives.hamsigreg(context(grid=None), values("hamsigreg", kind=kind))
    along = parts.objectives["hamsigreg"].settings.defaults()["chain"] | {"mode": "1d"}
    objectives.hamsigreg(context(grid=None), values("hamsigreg", kind="chain", chain=along))
    objectives.hamjepa(context(predictor=nn.identity_predictor()), values("hamjepa"))


BAD = {
    "chain.eps": 0.0,
    "chain.kappa": -1.0,
    "chain.beta": 1.5,
    "learnable.shape.base_ridge": 0.0,
    "learnable.shape.base_strength": -1.0,
    "learnable.shape.delta_clip": -1.0,
    "learnable.shape.log_clip": 0.0,
    "learnable.penalty.cond_max": 0.5,
    "learnable.bins": 1,
    "learnable.alpha_ramp": -1.0,
    "learnable.alpha_start": float("nan"),
    "kind": "ring",
}


@pytest.mark.parametrize("path", BAD)
def test_bounds_of_a_geometry_are_stated_once(path):
    fields = parts.objectives["hamsigreg"].settings
    block = fields.defaults()
    *groups, name = path.split(".")
    inner = block
    for group in groups:
        inner = inner[group]
    inner[name] = BAD[path]
    with pytest.raises(UserError, match=rf"{G}{path} {BAD[path]!r}: must be".replace(".", r"\.")) as error:
        fields.check(block, G)
    if "chain" in path or "base" in path:
        assert "positive definite" in str(error.value)


def test_every_objective_says_what_a_run_asks_of_it():
    for part in parts.objectives.parts():
        assert {"title", "shown", "uses_predictor", "reads_qp"} <= set(part.about)
    assert [part.name for part in parts.objectives.parts()][:4] == ["hamjepa", "lejepa", "hamsigreg", "vicreg"]


@pytest.mark.parametrize(
    "name, given", [("hamjepa", {}), ("lejepa", {}), ("vicreg", {}), ("hamsigreg", {}), ("hamsigreg", learnable())]
)
def test_an_objective_logs_what_it_shows(name, given):
    run = context(horizon=lambda epoch: 1)
    objective = parts.objectives[name].make(run, values(name, **given))
    params = objective.init() if objective.init else run.predictor.init(jax.random.key(0), 32)
    z = jax.ShapeDtypeStruct((2, 16, 64), "float32")
    _, metrics = jax.eval_shape(objective.loss, params, z, jax.eval_shape(lambda: objective.draw(0)), 1)
    missing = set(parts.objectives[name].about["shown"]) - set(metrics)
    assert missing <= ({"spectrum_lam_cond"} if not objective.init else set())


def test_making_an_objective_computes_nothing(monkeypatch):
    """Every check of a config makes one."""
    flow = predictor()

    def refuse(*args, **kwargs):
        raise AssertionError("something was computed")

    monkeypatch.setattr(jax, "jit", refuse)
    monkeypatch.setattr(jax.random, "key", refuse)
    for name, given in [("hamjepa", {}), ("vicreg", {}), ("lejepa", {}), ("hamsigreg", learnable())]:
        made = parts.objectives[name].make(context(predictor=flow), values(name, **given))
        assert made.refresh_interval >= 1


def test_a_learned_spectrum_keeps_the_optimiser_state_of_older_checkpoints():
    objective = objectives.hamsigreg(context(), values("hamsigreg", **learnable()))
    assert objective.reads == objectives.SPECTRUM == "spectrum"
    state = objective.optimizer.init(objective.init())
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert paths == [
        ".step",
        ".inner_state[0].count",
        ".inner_state[0].mu['raw_shape']",
        ".inner_state[0].mu['raw_span']",
        ".inner_state[0].nu['raw_shape']",
        ".inner_state[0].nu['raw_span']",
    ]


def test_a_geometry_outside_training_is_the_one_of_training():
    """Of a learned H at an epoch on its ramps; states [q; p] are two grids."""
    s = values("hamsigreg", **learnable(alpha_ramp=4.0, eps_ridge=0.1))
    grid = objectives.Grid(4, 4, 2)
    raw = objectives.hamsigreg(context(), s).init() | {"raw_shape": np.linspace(-1, 1, 7, dtype=np.float32)}
    z = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    got = objectives.ham_geometry(s, grid, raw, 2)(z)
    shape = s.learnable.shape.asdict() | dict(h=4, w=4, bins=8, span_max=0.4)
    lambda_2d = learned_spectrum.spectrum(raw, eps_ridge=0.1, alpha=0.5, beta=1.0, **shape)
    for half, part in zip(np.split(z, 2, -1), np.split(got, 2, -1), strict=True):
        modes = np.fft.fft2(half.reshape(5, 4, 4, 2), axes=(1, 2)) * np.sqrt(lambda_2d)[None, :, :, None]
        np.testing.assert_allclose(np.fft.ifft2(modes, axes=(1, 2)).real.reshape(5, -1), part, atol=1e-5)
