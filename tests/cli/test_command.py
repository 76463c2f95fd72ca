"""The command hamjepa: its list, its pages, and its mistakes."""

import importlib.util
import subprocess
import sys

import pytest

from hamjepa_jax.cli import command
from hamjepa_jax.config import __main__ as config_page


def run(*words):
    """A process of its own, as the installed command is one."""
    code = "import sys; from hamjepa_jax.cli.command import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120)


def test_help_lists_every_command_without_importing_jax():
    code = "import sys; from hamjepa_jax.cli.command import main; main(); sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert all(f"  {name} " in done.stdout for name in command.COMMANDS)
    assert "train (main), prepare (data.prepare), import (interop.torch), export" in done.stdout


@pytest.mark.parametrize("name", command.COMMANDS)
def test_every_command_is_a_page_of_the_package(name):
    module = f"hamjepa_jax.{command.COMMANDS[name][0]}"
    spec = importlib.util.find_spec(module)
    assert spec.submodule_search_locations is None or importlib.util.find_spec(f"{module}.__main__")


def test_a_page_gets_the_words_and_gives_its_status():
    done = run("config", "quickstart", "--config.train.epochs=3")
    assert done.returncode == 0 and "train.epochs = 3 (default 30)" in done.stdout
    refused = run("train", "--config=quickstart")
    assert refused.returncode == 2 and refused.stderr.startswith("error: --workdir is missing")


def test_a_page_s_help_names_the_command_as_it_was_typed(monkeypatch):
    from hamjepa_jax import main, reproduce

    monkeypatch.setattr(sys, "orig_argv", ["python", "/env/bin/hamjepa", "train", "--help"])
    assert main.make_parser().format_usage().startswith("usage: hamjepa train ")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "hamjepa_jax.main", "--workdir", "runs/hamjepa", "-h"])
    assert main.make_parser().format_usage().startswith("usage: python -m hamjepa_jax.main ")
    assert "(default: 0,1,2)" in reproduce.make_parser().format_help()


def test_unknown_commands_are_refused_with_the_nearest(capsys):
    assert command.main(["trian"]) == 2
    assert capsys.readouterr().err.startswith("error: hamjepa trian: there is no such command; did you mean train?")


def test_the_version_is_the_package_s(capsys):
    assert command.main(["--version"]) == 0 and capsys.readouterr().out.startswith("hamjepa 0.")


def test_the_differences_of_two_configs_are_a_line_each(capsys):
    assert config_page.main(["cifar100", "--diff=cifar100_mlp"]) == 0
    assert capsys.readouterr().out == "predictor.kind = 'hamiltonian' | 'mlp'\n"
    assert config_page.main(["--config=cifar100", "--config.predictor.kind=mlp", "--diff=cifar100_mlp"]) == 0
    assert capsys.readouterr().out == "the two are the same\n"
    assert config_page.main(["--diff", "cifar100_mlp", "cifar100"]) == 0
    assert capsys.readouterr().out == "predictor.kind = 'hamiltonian' | 'mlp'\n"


def test_two_configs_without_a_difference_to_list_are_refused(capsys):
    for words in (["cifar100", "--config=cifar100_mlp"], ["cifar100", "cifar100_mlp"]):
        with pytest.raises(SystemExit, match="2"):
            config_page.main(words)
        assert capsys.readouterr().err.startswith("error: ")
