"""One grammar of name=value: for every kind of field, and the same as a flag, in --override and in grids."""

import json
import pathlib

import pytest

from hamjepa_jax import config as config_lib
from hamjepa_jax import main
from hamjepa_jax.cli.parser import read_config
from hamjepa_jax.config.grammar import assignment
from hamjepa_jax.data import open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.experiments import paper
from hamjepa_jax.experiments.grid import Grid, make_config

ROOT = pathlib.Path(__file__).parent.parent.parent
TINY = ROOT / "tests" / "tiny.py"
TRUNK = ROOT / "tests" / "plugins" / "toy_trunk.py"

# (text, value), by kind.
READ = {
    "int": ("train.batch_size=64", 64),
    "int as a float's text": ("optimizer.learning_rate=1", 1.0),
    "float": ("optimizer.learning_rate=1e-3", 1e-3),
    "negative": ("objective.hamjepa.logdet_floor_q=-2.5", -2.5),
    "text": ("optimizer.warmup=3 epochs", "3 epochs"),
    "text with a sign": ("data.source=arrays:a=b.npz", "arrays:a=b.npz"),
    "quoted text": ("data.source='arrays:x.npz'", "arrays:x.npz"),
    "text in double quotes": ('data.source="None"', "None"),
    "empty text": ("log.compilation_cache=", ""),
    "text that looks like a number": ("data.cache_dir=5", "5"),
    "true": ("log.tensorboard=True", True),
    "false": ("log.tensorboard=false", False),
    "zero": ("log.tensorboard=0", False),
    "tuple": ("views.global_scale=(0.2, 1)", (0.2, 1)),
    "tuple by commas": ("evaluate.ks=1,5", (1, 5)),
    "list": ("evaluate.ks=[1, 5]", (1, 5)),
    "tuple of one": ("evaluate.ks=7", (7,)),
    "tuple of texts": ("evaluate.references=untrained,pixels", ("untrained", "pixels")),
    "empty tuple": ("predictor.horizon=()", ()),
    "tuple of pairs": ("predictor.horizon=((1, 1), (5, 2))", ((1, 1), (5, 2))),
    "optional int": ("train.steps=9", 9),
    "None of an int": ("train.steps=None", None),
    "None of a float": ("optimizer.clip_norm=None", None),
    "None of a text": ("log.compilation_cache=None", None),
}
REFUSED = {
    "train.batch_size=many": r"train\.batch_size 'many': must be a whole number",
    "train.batch_size=1.5": r"train\.batch_size '1\.5': must be a whole number",
    "train.batch_size=None": r"train\.batch_size None: must be a whole number of at least 1",
    "train.batch_size=0": r"train\.batch_size 0: must be a whole number of at least 1",
    "optimizer.learning_rate=": r"optimizer\.learning_rate '': must be a number",
    "log.tensorboard=maybe": r"log\.tensorboard 'maybe': must be True or False",
    "log.every=None": r"log\.every None: must be text",
    "views.global_scale=(0.2, 0.5, 1)": r"views\.global_scale .*: must be 2 values",
    "evaluate.ks=": r"evaluate\.ks \(\): must be a list of one value or more",
    "encoder.mode=both": r"encoder\.mode 'both': must be one of token, global",
    "train.epoch=5": r"train\.epoch: the config has no such field; did you mean train\.epochs\.",
    "predictor.stepsize=1": r"predictor\.stepsize: .*did you mean predictor\.step_size\.",
    "nothing=1": r"nothing: the config has no such field; python -m hamjepa_jax\.config lists every field\.",
    "optimizer=1": r"optimizer: the config has no such field",
    "seed.x=1": r"seed\.x: the config has no such field",
}


def value_of(config, path):
    for name in path.split("."):
        config = config[name]
    return config


@pytest.fixture
def command_line(monkeypatch):
    """Returns command_line(texts) -> the config of tests/tiny.py with these --config.FIELD=VALUE."""
    monkeypatch.chdir(ROOT)

    def config_of(texts):
        words = [f"--config={TINY}", *(f"--config.{text}" for text in texts)]
        return read_config(main.make_parser().parse_args(words))

    return config_of


def by_override(texts):
    """The same by --override of reproduce."""
    recipe = paper.Recipe(TINY.name, {})
    overrides = dict(map(assignment, texts))
    return paper.make_config(
        recipe, str(TINY.parent), "synthetic:96x8", open_source("synthetic:96x8"), True, overrides
    )


def by_grid(values):
    """The same by a grid, whose values are JSON's."""
    grid = Grid(str(TINY), json.loads(json.dumps(values)), {"train.epochs": [2]}, [0])
    return make_config(grid, {}, 0)


@pytest.mark.parametrize("case", READ)
def test_every_kind_of_field_is_read_the_same_everywhere(case, tiny_config, command_line):
    text, expected = READ[case]
    field, value = assignment(text)
    config_lib.assign(tiny_config, field, value)
    for config in (tiny_config, command_line([text]), by_override([text]), by_grid({field: expected})):
        found = value_of(config, field)
        assert found == expected and type(found) is type(value_of(tiny_config, field))


@pytest.mark.parametrize("text", REFUSED)
def test_refusals_are_the_same_everywhere(text, tiny_config, command_line):
    for refuse in (
        lambda: config_lib.assign(tiny_config, *assignment(text)),
        lambda: command_line([text]),
        lambda: by_override([text]),
    ):
        with pytest.raises(UserError, match=REFUSED[text]) as error:
            refuse()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("field, value", [("train.batch_size", "many"), ("log.every", None), ("train.epoch", 5)])
def test_a_grid_s_values_are_refused_with_the_field(field, value):
    with pytest.raises(UserError, match=rf"^{field}"):
        by_grid({field: value})


def test_the_last_of_a_field_counts(command_line):
    texts = ["optimizer.clip_norm=None", "train.steps=5", "optimizer.clip_norm=2", "train.steps=None"]
    for config in (command_line(texts), by_override(texts)):
        assert config.optimizer.clip_norm == 2.0 and config.train.steps is None


def test_plugins_come_first_for_the_fields_that_they_bring(command_line):
    texts = ["encoder.toy_transformer.width=6", "encoder.trunk=toy_transformer", f"plugins={TRUNK}"]
    values = {"encoder.toy_transformer.width": 6, "plugins": [str(TRUNK)]}
    for config in (command_line(texts), by_override(texts), by_grid(values)):
        assert config.plugins == (str(TRUNK),) and config.encoder.toy_transformer.width == 6
    with pytest.raises(UserError, match=r"encoder\.toy_transformer\.width: the config has no such field"):
        command_line(texts[:2])


def test_an_assignment_names_its_flag():
    assert assignment("data.source=a=b") == ("data.source", "a=b")
    for text in ("train.epochs", "=5", ""):
        with pytest.raises(UserError, match=f"--override {text}: expected a field and its value"):
            assignment(text)


def test_flags_without_a_value_are_switches(command_line):
    monochrome = command_line(["log.tensorboard"])
    assert monochrome.log.tensorboard is True
    words = [f"--config={TINY}", "--noconfig.log.tensorboard"]
    assert read_config(main.make_parser().parse_args(words)).log.tensorboard is False
