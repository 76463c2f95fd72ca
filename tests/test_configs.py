"""Every config file: it is valid, and its whole training step has consistent shapes."""

import functools
import importlib
import json
import pathlib

import jax
import pytest
from jax.sharding import AxisType

from configs import tin100
from hamjepa_jax import build
from hamjepa_jax import config as config_lib
from hamjepa_jax.data.sources.trajectories import SYSTEMS
from hamjepa_jax.errors import UserError
from hamjepa_jax.report.tables import mean_text

FILES = pathlib.Path(__file__).parent.parent.joinpath("configs").glob("*.py")
CONFIGS = sorted(file.stem for file in FILES if file.stem not in ("__init__", "common"))
DEEP = ("cifar100_i_jepa", "imagenet100_resnet50", "imagenet100_vits")  # They take seconds to trace.
OF_SYSTEMS = [name for name in CONFIGS if name.startswith("trajectories_")]  # Their step is that of `trajectories`.
SLOW = (*DEEP, *OF_SYSTEMS)
NUM_TRAIN = 50_000


def get_config(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CONFIGS]
)
def test_a_config_builds_and_its_step_keeps_the_state(name):
    config = get_config(name)
    build.check(config)
    config_lib.check_devices(config, 8)
    config_lib.check_durations(config, NUM_TRAIN)
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1], axis_types=(AxisType.Auto,))
    training = build.build_training(config, build.build_model(config), NUM_TRAIN, mesh)
    state = jax.eval_shape(lambda: training.init(build.init_key(config)))
    side, batch = config.data.image_size, (config.train.batch_size,)
    if config.train.steps_per_dispatch > 1:
        batch = (config.train.steps_per_dispatch, *batch)
    frames = () if config.views.stack == 1 else (config.views.stack + config.views.max_gap,)
    store = jax.ShapeDtypeStruct((NUM_TRAIN, *frames, side, side, 3), "uint8")
    after, metrics = jax.eval_shape(training.step, state, store, jax.ShapeDtypeStruct(batch, "int32"))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert {"total", "pred", "grad_norm", "learning_rate"} <= set(metrics)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_says_how_it_is_run_and_what_came_out(name):
    header = pathlib.Path(importlib.import_module(f"configs.{name}").__file__).read_text().partition("\nfrom ")[0]
    assert f"--config=configs/{name}.py" in header
    assert "measured" in header or "GPU" in header or "CPU" in header


def test_the_numbers_of_the_quickstart_s_header_are_measured():
    root = pathlib.Path(__file__).parent.parent
    content = json.loads((root / "docs" / "results" / "quickstart.json").read_text())
    rows = content["results"]["hamjepa"] | content["references"]["hamjepa"]
    told = [
        mean_text(rows[row][key]["values"])
        for row in ("q", "untrained q", "raw pixels")
        for key in content["protocol"].values()
    ]
    header = (root / "configs" / "quickstart.py").read_text().partition("\nfrom ")[0]
    assert [text for text in told if text not in header] == []
    assert content["runs"][0]["environment"]["git"]["commit"][:10] in header


def test_every_system_has_a_config_and_another_with_the_mlp_predictor():
    assert sorted(f"trajectories_{s}{end}" for s in SYSTEMS for end in ("", "_mlp")) == OF_SYSTEMS
    for name in OF_SYSTEMS:
        system = name.removeprefix("trajectories_").removesuffix("_mlp")
        predictor = "mlp" if name.endswith("_mlp") else "hamiltonian"
        for more in ("", "epochs=3,friction=0.1"):
            base = config_lib.read_config(f"trajectories:system={system},predictor={predictor},{more}")
            assert config_lib.read_config(f"{name}:{more}").to_dict() == base.to_dict()
        assert base.data.source.startswith(f"trajectories:{system}?") and base.data.source.endswith("friction=0.1")
        assert (base.predictor.kind, base.train.epochs) == (predictor, 3)


@pytest.mark.parametrize(
    "text, message",
    [
        ("trajectories_spring:system=pendulum", r"'system=pendulum': this config has system=spring; leave it out"),
        (
            "trajectories_spring_mlp:predictor=identity",
            r"has predictor=mlp; .* give it to --config=trajectories\.$",
        ),
        ("trajectories_spring:speed=1", r"'speed=1': this file understands system=…, predictor=…, friction=…"),
        ("trajectories_sprin", r"did you mean trajectories_spring\?"),
        ("trajectories:predictor=linear", r"predictor\.kind 'linear': must be one of hamiltonian, identity, mlp"),
    ],
)
def test_another_system_or_predictor_is_refused(text, message):
    with pytest.raises(UserError, match=message) as error:
        build.check(config_lib.read_config(text))
    assert "\n" not in str(error.value)


# The constants of the published runs (arXiv 2605.20107), written out; the default values count nothing here.
BOTH = {
    "encoder.mode": "token",
    "encoder.width": 64,
    "encoder.token_layer": 3,
    "encoder.token_dim": 32,
    "encoder.split_qp": True,
    "encoder.projector": "identity",
    "encoder.dtype": "auto",
    "predictor.kind": "hamiltonian",
    "predictor.energy": "separable",
    "predictor.method": "leapfrog",
    "predictor.num_steps": 2,
    "predictor.horizon": (),
    "predictor.step_size": 0.05,
    "predictor.hidden": 256,
    "predictor.depth": 2,
    "predictor.base_coeff": 0.1,
    "predictor.residual_scale": 0.02,
    "objective.name": "hamjepa",
    "objective.hamjepa.detach_target": True,
    "objective.hamjepa.energy_weight": 0.0,
    "objective.hamjepa.budget_weight": 0.2,
    "objective.hamjepa.q_target": 1.0,
    "objective.hamjepa.p_target": 1.0,
    "objective.hamjepa.variance_floor": 0.2,
    "objective.hamjepa.variance_eps": 1e-4,
    "objective.hamjepa.logdet_eps": 1e-4,
    "objective.hamjepa.projection_dim": 128,
    "objective.hamjepa.refresh_interval": 16,
    "objective.hamjepa.mean_weight": 0.05,
    "optimizer.learning_rate": 5e-4,
    "optimizer.weight_decay": 5e-4,
    "optimizer.b1": 0.9,
    "optimizer.b2": 0.999,
    "optimizer.eps": 1e-8,
    "optimizer.clip_norm": 1.0,
    "optimizer.warmup": "10 epochs",
    "optimizer.warmup_start": 0.01,
    "optimizer.final": 1e-3,
    "train.steps": None,
    "train.accumulation": 1,
    "views.num_global": 2,
    "views.num_local": 0,
    "views.ratio": (3 / 4, 4 / 3),
    "views.flip_prob": 0.5,
    "views.jitter_prob": 0.8,
    "views.brightness": 0.4,
    "views.contrast": 0.4,
    "views.saturation": 0.2,
    "views.hue": 0.1,
    "views.grayscale_prob": 0.2,
    "views.blur_prob": 0.5,
    "views.blur_sigma": (0.1, 2.0),
    "views.solarize_prob": 0.2,
    "views.solarize_threshold": 128,
    "evaluate.ks": (1, 5, 10, 20, 50, 100, 200),
    "evaluate.probe.epochs": 50,
    "evaluate.probe.batch_size": 256,
    "evaluate.probe.learning_rates": (1e-3,),
    "evaluate.probe.weight_decay": 1e-6,
}
CIFAR100 = BOTH | {
    "train.batch_size": 512,
    "train.epochs": 30,
    "data.image_size": 32,
    "data.eval_resize": None,
    "data.mean": (0.5071, 0.4867, 0.4408),
    "data.std": (0.2675, 0.2565, 0.2761),
    "views.global_scale": (0.3, 1.0),
    "views.local_scale": (0.05, 0.3),
    "views.blur_kernel": 3,
    "encoder.stem": "cifar",
    "encoder.token_hw": None,
    "predictor.residual_warmup_epochs": 10,
    "objective.hamjepa.match": "q",
    "objective.hamjepa.p_weight": 0.2,
    "objective.hamjepa.both_directions": "reverse_time",
    "objective.hamjepa.variance_weight": 0.5,
    "objective.hamjepa.variance_on": "qp",
    "objective.hamjepa.logdet_weight": 0.5,
    "objective.hamjepa.logdet_floor_q": -1.5,
    "objective.hamjepa.logdet_floor_p": -1.5,
    "objective.hamjepa.pr_floor_q": 0.12,
    "objective.hamjepa.pr_floor_p": 0.16,
    "objective.hamjepa.eigmax_ceiling_q": 0.35,
    "objective.hamjepa.eigmax_ceiling_p": 0.30,
    "optimizer.predictor_learning_rate": None,
}
IMAGENET100 = BOTH | {
    "train.batch_size": 256,
    "train.epochs": 45,
    "data.image_size": 224,
    "data.eval_resize": 256,
    "data.mean": (0.485, 0.456, 0.406),
    "data.std": (0.229, 0.224, 0.225),
    "views.global_scale": (0.4, 1.0),
    "views.local_scale": (0.05, 0.4),
    "views.local_size": 98,
    "views.blur_kernel": 23,
    "encoder.stem": "imagenet",
    "encoder.token_hw": 8,
    "predictor.residual_warmup_epochs": 0,
    "objective.hamjepa.match": "qp",
    "objective.hamjepa.both_directions": "forward",
    "objective.hamjepa.variance_weight": 1.0,
    "objective.hamjepa.variance_on": "q",
    "objective.hamjepa.logdet_weight": 1.0,
    "objective.hamjepa.logdet_floor_q": -1.2,
    "objective.hamjepa.logdet_floor_p": -1.2,
    "objective.hamjepa.pr_floor_q": 0.25,
    "objective.hamjepa.pr_floor_p": 0.25,
    "objective.hamjepa.eigmax_ceiling_q": 0.10,
    "objective.hamjepa.eigmax_ceiling_p": 0.10,
    "optimizer.predictor_learning_rate": 5e-5,
}
BASELINE = {
    "objective.name": "lejepa",
    "predictor.kind": "identity",
    "optimizer.clip_norm": None,
    "objective.lejepa.sigreg_weight": 0.02,
    "objective.lejepa.num_directions": 64,
    "objective.lejepa.num_points": 9,
    "objective.lejepa.t_max": 3.0,
    "objective.lejepa.weight": "gaussian",
    "objective.lejepa.subsample": None,
    "objective.lejepa.clip": None,
    "objective.lejepa.refresh_interval": 1,
}
PUBLISHED = {
    "cifar100": CIFAR100,
    "imagenet100": IMAGENET100,
    "cifar100_sigreg": CIFAR100 | BASELINE | {"encoder.split_qp": False},
    "imagenet100_sigreg": IMAGENET100 | BASELINE,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_config_has_the_published_constants(name):
    config = get_config(name)
    found = {
        field: functools.reduce(lambda c, part: c[part], field.split("."), config) for field in PUBLISHED[name]
    }
    assert found == PUBLISHED[name]


G, L = "objective.hamsigreg.", "objective.hamsigreg.learnable."
BAD = {
    "kind": ({G + "kind": "ring"}, r"kind 'ring': must be one of identity, diag, chain, learnable"),
    "bins": ({L + "bins": 1}, r"learnable\.bins 1: must be a whole number between 2 and 4096"),
    "chain": (
        {G + "kind": "chain", G + "chain.eps": 0.0},
        r"eps 0\.0: .*above 0; .*positive definite",
    ),
    "mode": ({G + "chain.mode": "2d"}, r"chain\.mode '2d'.*1d, grid"),
    "no grid": (
        {G + "kind": "chain", "encoder.mode": "global", "encoder.embed_dim": 64},
        r"kind 'chain'.*token grid.*encoder\.mode='token'.*'1d'",
    ),
    "grid behind a projector": ({"encoder.projector": "mlp"}, r"kind 'learnable'.*encoder\.projector='identity'"),
    "one token": ({"encoder.token_hw": 1}, r"grid of one token.*encoder\.token_layer"),
    "span": ({L + "init_loglambda_span": 0.4}, r"init_loglambda_span 0\.4.*span_max 0\.4"),
    "ridge": ({L + "shape.base_ridge": 0.0}, r"base_ridge 0\.0: must be a number above 0; .*positive definite"),
    "clip of increments": ({L + "shape.delta_clip": -1.0}, r"delta_clip -1\.0.*None"),
    "condition": ({L + "penalty.cond_max": 0.5}, r"cond_max 0\.5.*at least 1"),
    "ramp": ({L + "alpha_ramp": -1.0}, r"alpha_ramp -1\.0"),
    "interval": (
        {"optimizer.spectrum_interval": 0},
        r"optimizer\.spectrum_interval 0: .*at least 1",
    ),
    "predictor": ({"predictor.kind": "mlp"}, r"predictor\.kind 'mlp'.*'hamsigreg'.*identity"),
    "subsample": ({"objective.lejepa.subsample": 1000}, r"lejepa\.subsample 1000.*512.*None"),
    "clip": ({"objective.lejepa.clip": -0.1}, r"lejepa\.clip -0\.1"),
    "range": ({"objective.lejepa.t_max": 0.0}, r"lejepa\.t_max 0\.0"),
}
BAD_HORIZONS = {
    ((1, 1), 2): r"\(epoch, steps\)",
    ((2, 1), (3, 2)): r"begin with 1",
    ((1, 1), (1, 2)): r"ascend",
    ((1, 2), (5, 1)): r"steps must grow",
    ((1, 1), (5, 3)): r"predictor\.num_steps 2",
    ((1, 0), (5, 2)): r"at least 1",
}


def refuse(config, changes, message):
    for field, value in changes.items():
        *path, name = field.split(".")
        block = config
        for part in path:
            block = block[part]
        block[name] = value
    with pytest.raises(UserError, match=message) as error:
        build.check(config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", BAD)
def test_impossible_geometries_are_refused_with_field_and_remedy(case):
    refuse(get_config("cifar100_hamsigreg_learnable"), *BAD[case])


@pytest.mark.parametrize("stages", BAD_HORIZONS)
def test_impossible_curricula_are_refused_with_field_and_remedy(stages):
    refuse(get_config("cifar100"), {"predictor.horizon": stages}, r"predictor\.horizon.*" + BAD_HORIZONS[stages])


def test_steps_nobody_takes_are_refused():
    still = {"predictor.kind": "identity", "predictor.horizon": ((1, 1), (5, 2))}
    refuse(get_config("cifar100"), still, r"predictor\.horizon.*no steps; set it to \(\)")


def test_vicreg_needs_two_views():
    refuse(get_config("cifar100_vicreg"), {"views.num_global": 1}, r"views\.num_global 1.*2")


def test_a_general_energy_comes_with_a_warning():
    config = get_config("cifar100")
    assert config_lib.warnings(config) == []
    config.predictor.energy = "general"
    (warning,) = config_lib.warnings(config)
    assert "predictor.energy 'general'" in warning and "'leapfrog'" in warning and "symplectic" in warning


def test_a_config_of_another_version_is_named():
    config = get_config("cifar100").unlock()
    del config.predictor["energy"]
    with pytest.raises(UserError, match=r"predictor\.energy: the config lacks it.*; set it"):
        build.check(config)


def test_an_unknown_recipe_is_refused_with_those_there_are():
    with pytest.raises(UserError, match=r"'method=foo': must be one of hamjepa, mlp, sigreg"):
        tin100.get_config("method=foo")
