"""The flags of the command line: fields set to None, and mistakes in one sentence."""

import pathlib

import pytest

from hamjepa_jax import main as main_lib
from hamjepa_jax.cli.parser import read_config

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def parse(*arguments):
    """The config that the command makes of these flags."""
    return read_config(main_lib.make_parser().parse_args(arguments))


def refusal(capsys, *arguments):
    """The one line that the command ends with."""
    try:
        status = main_lib.main(list(arguments))
    except SystemExit as stopped:  # By the parser.
        status = stopped.code
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 2 and line.startswith("error: ")
    return line


def test_optional_fields_are_set_to_none():
    config = parse(
        "--config=configs/imagenet100.py",
        "--config.optimizer.clip_norm=None",
        "--config.data.cache_dir=None",
        "--config.log.compilation_cache",
        "None",
        "--config.objective.hamjepa.logdet_floor_q=None",
        "--config.train.batch_size=64",
    )
    assert config.optimizer.clip_norm is config.data.cache_dir is config.log.compilation_cache is None
    assert config.objective.hamjepa.logdet_floor_q is None and config.objective.hamjepa.logdet_floor_p == -1.2
    assert config.train.batch_size == 64


def test_the_last_of_several_settings_counts():
    clip, resize = "--config.optimizer.clip_norm=", "--config.data.eval_resize="
    config = parse("--config=tests/tiny.py", clip + "None", clip + "2", resize + "8", resize + "None")
    assert config.optimizer.clip_norm == 2.0
    assert config.data.eval_resize is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--config=tests/tiny.py", "--config.optimizer.b1=None"],
            "optimizer.b1 None: must be a number of at least 0",
        ),
        (
            ["--config=tests/tiny.py", "--config.evaluate.ks=None"],
            "evaluate.ks None: must be a list of one value or more",
        ),
        (["--config=tests/tiny.py", "--config.data.source=None"], "data.source None: must be text"),
        (["--config=tests/tiny.py", "--config.optimizer=None"], "--config.optimizer: the config has no such"),
        (["--config=tests/tiny.py", "--config.optimizer.lr=None"], "--config.optimizer.lr: the config has no such"),
        (
            ["--config.optimizer.clip_norm=None"],
            "--config.optimizer.clip_norm=None: changes a config; name its file",
        ),
        (["--config", "configs/nope.py"], "--config configs/nope.py: no such file"),
        (["--config=configs/tin100.py:method=foo"], "'method=foo': must be one of hamjepa, mlp, sigreg"),
    ],
)
def test_mistakes_are_told_in_one_sentence(arguments, message, capsys, tmp_path):
    assert message in refusal(capsys, f"--workdir={tmp_path}", *arguments)


def test_a_config_file_that_cannot_read_its_own_files_is_told_at_once(capsys, tmp_path):
    (tmp_path / "own.py").write_text(f"def get_config(arg=None):\n    open('{tmp_path}/absent.txt')\n")
    assert "absent.txt" in refusal(capsys, f"--config={tmp_path}/own.py", f"--workdir={tmp_path}")


@pytest.mark.parametrize(
    "text, message",
    [
        ("def get_config(arg=None):\n    return nothing\n", "fails in line 2 (NameError: name 'nothing'"),
        ("1 / 0\n", "fails in line 1 (ZeroDivisionError: division by zero)"),
        ("def get_config():\n    return None\n", "fails (TypeError: get_config() takes 0"),
        ("def get_config(arg=None):\n    return 3\n", "must return a ConfigDict, not int"),
        ("def get_config(arg=None:\n", "SyntaxError"),
    ],
)
def test_a_config_file_that_fails_is_told_with_its_line(text, message, capsys, tmp_path):
    (tmp_path / "own.py").write_text(text)
    assert message in refusal(capsys, f"--config={tmp_path}/own.py", f"--workdir={tmp_path}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--mode=evaluate", "--profile=1:2"], "--profile: is about training steps"),
        (["--mode=evaluate", "--debug_nans"], "--debug_nans: is about training steps"),
        (["--step=3"], "--step=3: training goes on from the newest checkpoint"),
    ],
)
def test_flags_of_the_other_mode_are_refused(arguments, message, capsys, tmp_path):
    assert message in refusal(capsys, f"--workdir={tmp_path}", *arguments)


@pytest.mark.skipif(not pathlib.Path("/proc/self/mem").exists(), reason="needs a file whose reading fails")
def test_a_file_that_cannot_be_read_is_not_called_unwritable(capsys, tmp_path):
    (tmp_path / "config.json").symlink_to("/proc/self/mem")  # It opens, and reading it is an input/output error.
    assert main_lib.main([f"--workdir={tmp_path}", "--mode=evaluate"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}: cannot be read or written (Input/output error); the files there are kept" in line
