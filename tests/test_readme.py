"""README's commands and examples work as they stand there."""

import doctest
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from hamjepa_jax.cli.command import COMMANDS

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
# Added to a training command, so that it takes seconds.
SHORT = (
    "--config.train.steps=4 --config.optimizer.warmup=1\\ steps --config.evaluate.probe.epochs=1 "
    "'--config.data.source=shapes:300?test=50'"
)


def block(tag):
    """The code block under the comment <!-- test: TAG -->."""
    match = re.search(rf"<!-- test: {tag} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert match, f"README has no block {tag!r}"
    return match[1]


def commands():
    """Every python -m hamjepa_jax.… line of the bash blocks; `hamjepa NAME` is written so too."""
    text = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    for name, (module, _) in COMMANDS.items():
        text = re.sub(rf"^hamjepa {name}\b", f"python -m hamjepa_jax.{module}", text, flags=re.MULTILINE)
    return [line for line in text.splitlines() if line.startswith("python -m hamjepa_jax")]


def test_the_examples_print_what_they_say():
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testfile(str(ROOT / "README.md"), module_relative=False, optionflags=flags)
    assert failed == 0


@pytest.fixture(scope="module")
def plugin_folder(tmp_path_factory):
    """The folder of the example's plugin, one for all tests: a process knows an objective's name once."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "spread.py").write_text(block("plugin"))
    return folder


def test_files_and_settings_in_commands_exist(plugin_folder, monkeypatch):
    from hamjepa_jax.config import change, default_config, read_config
    from hamjepa_jax.config.grammar import assignment

    monkeypatch.chdir(plugin_folder)
    for line in commands():
        words = shlex.split(line, comments=True)
        config = default_config()
        for word in words:
            if word.startswith(("--config=", "--diff=")):
                name = word.partition("=")[2]
                config = read_config(f"{ROOT}/{name}" if "/" in name.partition(":")[0] else name)
        change(config, [assignment(w.removeprefix("--config.")) for w in words if w.startswith("--config.")])
        module = words[2].replace(".", "/")
        assert (ROOT / f"{module}.py").is_file() or (ROOT / module / "__main__.py").is_file(), line


def test_the_example_s_plugin_is_an_objective(plugin_folder, monkeypatch):
    from hamjepa_jax import build
    from hamjepa_jax.config import configure
    from hamjepa_jax.config.grammar import assignment

    monkeypatch.chdir(plugin_folder)
    words = shlex.split(block("plugin command"))
    overrides = [assignment(w.removeprefix("--config.")) for w in words if w.startswith("--config.")]
    config = configure(ROOT / "configs" / "quickstart.py", overrides)
    build.check(config)
    assert config.objective.spread.weight == 0.5


def test_the_examples_that_are_run_are_there():
    assert all(map(block, ("path", "after path", "plugin", "plugin command", "training")))


def test_modules_in_the_tables_exist():
    """Each `folder/` and `file.py` of "Where things are"; a bare file's folder is that of the name before it."""
    section = README[README.index("## Where things are") : README.index("Settings of the published PyTorch runs")]
    folder = ""
    for name in re.findall(r"`([\w/]+(?:/|\.py))`", section):
        inside = "/" in name or (ROOT / "hamjepa_jax" / name).exists()
        path = name if inside or not folder else f"{folder}/{name}"
        if path.startswith(("sources/", "images/", "pipeline/")):
            path = f"data/{path}"
        assert (ROOT / "hamjepa_jax" / path).exists(), name
        folder = path.rpartition("/")[0]


def test_links_to_files_lead_somewhere():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_a_stranger_s_path(tmp_path):
    for name in ("configs", "hamjepa_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = os.environ | {"PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(command):
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    (tmp_path / "spread.py").write_text(block("plugin"))
    run(f"{block('plugin command').strip()} {SHORT}")
    for line in block("path").splitlines():
        printed = run(f"{line} {SHORT}" if "--config=" in line else line)
    assert printed.strip() == "4"
    for tag in ("after path", "training"):
        (tmp_path / "example.py").write_text(block(tag))
        run("python example.py")
