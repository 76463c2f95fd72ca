"""The default config: every field of version 0.1 with its default, and the configs that were saved then."""

import json
import pathlib
import tarfile

import pytest
import tiny

from hamjepa_jax import build, metrics, parts
from hamjepa_jax import config as config_lib
from hamjepa_jax.config.free import flat_fields, flatten
from hamjepa_jax.data import open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import Evaluator
from hamjepa_jax.parts import field
from hamjepa_jax.training.mesh import make_mesh

FIXTURE = pathlib.Path(__file__).parent.parent / "fixtures" / "written_by_0.1.tar.gz"
GONE = {"mesh.data", "predictor.learnable_step_size"}
# Version 0.1's defaults of the fields that tests/tiny.py sets, which the fixture does not show.
SET_BY_TINY = {
    "data.source": "digits", "data.image_size": 32, "encoder.width": 64, "encoder.token_layer": 3,
    "encoder.token_dim": 32, "encoder.dtype": "auto", "predictor.hidden": 256,
    "predictor.residual_warmup_epochs": 0, "objective.hamjepa.projection_dim": 128,
    "objective.hamjepa.refresh_interval": 16, "optimizer.clip_norm": None, "optimizer.warmup": "10 epochs",
    "train.epochs": 30, "train.batch_size": 512, "log.every": "20 steps", "log.tensorboard": True,
    "log.compilation_cache": None, "checkpoint.every": "1 epochs",
    "checkpoint.best_metric": "q/knn_top1_k20_cosine_majority", "evaluate.every": "10 epochs",
    "evaluate.batch_size": 512, "evaluate.ks": [1, 5, 10, 20, 50, 100, 200], "evaluate.probe.epochs": 50,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved():
    """The config that version 0.1 wrote for a run of tests/tiny.py."""
    with tarfile.open(FIXTURE) as archive:
        return json.load(archive.extractfile("./hamjepa_begun/config.json"))["config"]


def test_fields_and_defaults_are_those_of_the_earlier_version(saved):
    before, now, small = flatten(saved), flat_fields(config_lib.default_config()), flat_fields(tiny.get_config())
    assert {name for name in small if small[name] != now[name]} == set(SET_BY_TINY)
    expected = {name: value for name, value in before.items() if name not in GONE} | SET_BY_TINY
    assert {name: now.get(name) for name in expected} == expected
    assert before.keys() - now.keys() == GONE


def test_a_config_is_what_the_statements_say():
    config = config_lib.default_config()
    found = config_lib.fields_of(config)
    defaults = {name: list(f.default) if isinstance(f.default, tuple) else f.default for name, f in found.items()}
    assert flat_fields(config) == json.loads(json.dumps(defaults))
    with pytest.raises(AttributeError):
        config.optimizer.learning_rat = 0.1


def test_every_field_has_a_meaning():
    for name, stated in config_lib.fields_of(config_lib.default_config()).items():
        assert stated.meaning.endswith(".") and stated.meaning[0] == stated.meaning[0].strip(), name
        assert stated.problem(stated.default) is None, name


def test_a_saved_config_is_the_same_one_again(saved):
    assert flat_fields(config_lib.from_saved(saved)) == flat_fields(tiny.get_config())
    config = tiny.get_config()
    config.views.global_scale, config.predictor.horizon = (0.5, 1.0), ((1, 1), (2, 2))
    again = config_lib.from_saved(json.loads(config.to_json_best_effort()))
    assert again == config and again.predictor.horizon == ((1, 1), (2, 2))
    assert again.is_locked


def test_missing_fields_are_filled_in_and_retired_ones_dropped(saved):
    old = json.loads(json.dumps(saved))
    del old["optimizer"]["spectrum_interval"], old["objective"]["vicreg"]
    old["mesh"]["data"] = 4
    config = config_lib.from_saved(old)
    assert config.optimizer.spectrum_interval == 1
    assert config.objective.vicreg == config_lib.default_config().objective.vicreg
    assert "data" not in config.mesh and "learnable_step_size" not in config.predictor
    assert config_lib.differing_fields(config, tiny.get_config()) == []


# Whole numbers that other checks bound: by the data, the devices or the disk; or that may be as large as an int32.
WITHOUT_A_BOUND = {
    "seed", "train.batch_size", "train.accumulation", "mesh.fsdp", "checkpoint.keep_latest", "checkpoint.keep_best",
    "evaluate.batch_size", "evaluate.ks", "evaluate.probe.batch_size", "optimizer.spectrum_interval",
    "objective.hamjepa.refresh_interval", "objective.lejepa.refresh_interval", "objective.lejepa.subsample",
    "predictor.residual_warmup_epochs", "encoder.token_layer",
}  # fmt: skip


def test_every_whole_number_has_an_upper_bound():
    """Above it a program would not end, or would not fit any memory."""
    stated = config_lib.fields_of(config_lib.default_config())
    whole = {path: f for path, f in stated.items() if int in (f.kind, f.of)}
    assert {path for path, f in whole.items() if f.most is None} == WITHOUT_A_BOUND
    for path, statement in whole.items():
        for value in (10**24, -(10**24), 2**31):
            with pytest.raises(UserError, match="must be"):
                statement.check(path, (value,) if statement.kind is tuple else value)


def test_plugins_bring_their_settings_and_nobody_else_gets_them():
    plugin = str(pathlib.Path(__file__).parent.parent / "plugins" / "toy_trunk.py")
    config = config_lib.default_config(plugins=(plugin,))
    assert config.encoder.toy_transformer.width == 8
    assert "toy_transformer" not in config_lib.default_config().encoder
    changed = config_lib.default_config()
    config_lib.set_field(changed, "plugins", (plugin,))
    assert changed == config
    saved = json.loads(config.to_json_best_effort())
    saved["encoder"]["toy_transformer"] = {"width": 6}
    again = config_lib.from_saved(saved)
    assert (again.encoder.toy_transformer.width, again.encoder.toy_transformer.patch) == (6, 2)


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "there is no file"),
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("a b", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        (
            "from hamjepa_jax.parts import objectives\n@objectives.register('vicreg')\ndef mine(): ...",
            "'vicreg' is registered already",
        ),
        ("raise SystemExit", "SystemExit"),
        ("from hamjepa_jax.parts import *\nobjectives.register('a b')", "a name of letters, digits"),
        (
            "from hamjepa_jax.parts import *\ntrunks.register('a', {'w': 1})",
            "settings of type dict; use settings()",
        ),
        ("from hamjepa_jax.parts import *\nsettings(w=1.0)", "'w' is 1.0; state it with field("),
        ("from hamjepa_jax.parts import *\nobjectives.register('name')", "as the field objective.name is"),
        (
            "from hamjepa_jax.parts import *\nobjectives.register('a', reads_qp=True)(len)",
            "must state uses_predictor=",
        ),
        ("from hamjepa_jax.parts import *\npredictors.register('a')(len)", "must state has_steps="),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_refused_in_one_sentence(content, reason, tmp_path):
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    for _ in range(2):  # A second try finds no half of it.
        with pytest.raises(UserError) as error:
            config_lib.default_config(plugins=(str(file),))
        text = str(error.value)
        assert text.startswith(f"plugins '{file}': cannot be imported (") and reason in text
        assert text.endswith("give an importable module or the path of a Python file.") and "\n" not in text
    with pytest.raises(UserError, match=r"plugins 'no\.such\.module': cannot be imported"):
        config_lib.default_config(plugins=("no.such.module",))


def test_a_statement_is_checked_where_it_is_made():
    for options in (dict(least=2), dict(choices=(3, 4)), dict(kind=str)):
        with pytest.raises(ValueError, match="the default 1 must be"):
            field(1, "A number.", **options)
    assert field(None, "A number.", kind=float).optional


def test_settings_of_another_config_s_plugin_are_nobody_else_s_business(tmp_path, tiny_config):
    """A process that evaluates several workdirs has loaded the plugins of all."""
    (tmp_path / "own.py").write_text(
        "from hamjepa_jax.parts import field, metrics, settings\n"
        "SETTINGS = settings(power=field(2, 'Power of the mean.'))\n"
        "metrics.register('own_power', SETTINGS)(lambda x, s: 0.0)\n"
    )
    with_plugin = config_lib.default_config((str(tmp_path / "own.py"),))
    try:
        assert with_plugin.evaluate.own_power.power == 2 and "own_power" not in tiny_config.evaluate
        source = open_source(tiny_config.data.source)
        Evaluator(tiny_config, build.build_model(tiny_config), source, make_mesh())
        assert not any("own_power" in key for key in metrics.expected_keys(metrics.Protocol(), ["q"], plugins=()))
    finally:
        parts.metrics._parts.pop("own_power")


def test_a_setting_below_a_field_is_refused(tmp_path):
    (tmp_path / "own.py").write_text(
        "from hamjepa_jax.parts import field, metrics, settings\n"
        "metrics.register('ks', settings(w=field(1.0, 'W.')))(lambda x, s: 0.0)\n"
    )
    with pytest.raises(UserError, match=r"plugins: evaluate\.ks\.w cannot be a setting, since ks is a field"):
        config_lib.default_config((str(tmp_path / "own.py"),))
    del parts.metrics._parts["ks"]
