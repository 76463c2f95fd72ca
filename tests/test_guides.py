"""The commands and examples of README and docs/ work as they stand there."""

import contextlib
import doctest
import importlib
import io
import itertools
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from hamjepa_jax.cli.command import COMMANDS

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Added to a training command, so that it takes seconds.
SHORT = (
    "--config.train.steps=4 --config.train.batch_size=32 --config.encoder.width=4 "
    "--config.optimizer.warmup=1\\ steps --config.evaluate.probe.epochs=1 "
    "'--config.data.source=shapes:300?test=50'"
)


def page_name(path):
    return str(path.relative_to(ROOT))


def blocks(tag):
    """The code blocks under comments <!-- test: TAG -->, in all pages."""
    text = "\n".join(page.read_text() for page in PAGES)
    return re.findall(rf"<!-- test: {tag} -->\n```\w+\n(.*?)```", text, re.DOTALL)


def block(tag):
    (found,) = blocks(tag)
    return found


def commands(page):
    """Every python -m hamjepa_jax.… line of a page's bash blocks; `hamjepa NAME` and $run are written so too."""
    text = "\n".join(re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)).replace("\\\n", " ")
    _, *parts = re.split(r"^run=\"(.*)\"$", f'run=""\n{text}', flags=re.MULTILINE)
    text = "".join(part.replace("$run", run) for run, part in zip(parts[::2], parts[1::2], strict=True))
    for name, (module, _) in COMMANDS.items():
        text = re.sub(rf"^hamjepa {name}\b", f"python -m hamjepa_jax.{module}", text, flags=re.MULTILINE)
    return [line for line in text.splitlines() if line.startswith("python -m hamjepa_jax")]


@pytest.mark.parametrize("page", [p for p in PAGES if ">>> " in p.read_text()], ids=page_name)
def test_the_examples_print_what_they_say(page):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, tried = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert failed == 0 and tried > 0


@pytest.fixture(scope="module")
def plugin_folder(tmp_path_factory):
    """The folder of the example's plugin, one for all tests: a process knows an objective's name once."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "spread.py").write_text(block("plugin"))
    return folder


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=page_name)
def test_flags_files_and_settings_in_commands_exist(page, plugin_folder, monkeypatch):
    from hamjepa_jax.config import change, check_settings, default_config, read_config
    from hamjepa_jax.config.grammar import assignment

    monkeypatch.chdir(plugin_folder)
    for line in commands(page):
        words = shlex.split(line, comments=True)
        config = default_config()
        for word in words:
            if word.startswith(("--config=", "--diff=")):
                name = word.partition("=")[2]
                config = read_config(f"{ROOT}/{name}" if "/" in name.partition(":")[0] else name)
        change(config, [assignment(w.removeprefix("--config.")) for w in words if w.startswith("--config.")])
        check_settings(config)
        command = importlib.import_module(words[2])
        if hasattr(command, "__path__"):
            command = importlib.import_module(f"{words[2]}.__main__")
        complaint = io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint):
                command.make_parser().parse_args(words[3:])
        except SystemExit:
            pytest.fail(f"{line}: {complaint.getvalue()}")


def test_the_guide_s_geometries_exist_in_the_guide_s_run():
    from hamjepa_jax.config import shipped
    from hamjepa_jax.evaluate.transform import geometry_map

    page = (ROOT / "docs/guides/evaluating.md").read_text()
    found = re.findall(r"^hamjepa evaluate runs/quickstart .*--metric=(\S+)", page, re.MULTILINE)
    assert found
    for metric in found:
        geometry_map(shipped("quickstart"), metric, None, 1)


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


def test_the_guide_s_method_of_one_s_own_goes_beside_the_others(plugin_folder, monkeypatch):
    from hamjepa_jax import build
    from hamjepa_jax.experiments import paper

    monkeypatch.chdir(plugin_folder)
    (plugin_folder / "mine.py").write_text(block("method"))
    recipes = paper.chosen_recipes(paper.TABLES["matched"], ("hamjepa", "mine.py"))
    configs = {name: paper._base(recipe, None) for name, recipe in recipes.items()}
    paper.check_matched(configs)
    build.check(configs["mine"])
    assert configs["mine"].objective.spread.weight == 0.5


def test_the_examples_that_are_run_are_there():
    assert all(map(block, ("path", "after path", "plugin", "plugin command", "training")))
    assert len(blocks("guide")) >= 3


@pytest.mark.parametrize("page", ["docs/code.md", "docs/method.md"])
def test_modules_in_the_tables_exist(page):
    """Each `folder/` and `file.py` in the tables' rows; a bare file's folder is that of the name before it."""
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("|")]
    folder = ""
    for name in re.findall(r"`([\w/]+(?:/|\.py))`", "\n".join(rows)):
        inside = "/" in name or (ROOT / "hamjepa_jax" / name).exists()
        path = name if inside or not folder else f"{folder}/{name}"
        if path.startswith(("sources/", "images/", "pipeline/")):
            path = f"data/{path}"
        assert (ROOT / "hamjepa_jax" / path).exists(), name
        folder = path.rpartition("/")[0]
    assert folder


def test_every_objective_and_config_of_cifar100_is_in_the_table_of_baselines():
    from hamjepa_jax.config import default_config, shipped
    from hamjepa_jax.config.shipped import names

    rows = [line for line in (ROOT / "docs/guides/baselines.md").read_text().splitlines() if line.startswith("|")]
    shown = set(re.findall(r"`(cifar100\w*)`", "\n".join(rows)))
    assert shown == {name for name in names() if name.startswith("cifar100")}
    known = set(default_config().objective) - {"name", "classification"}  # The latter learns from labels.
    assert {shipped(name).objective.name for name in shown} == known


def test_every_config_is_in_the_table_of_the_guide_to_training():
    """By its name, or by its end after one that begins alike; those of CIFAR-100 are in that of the baselines."""
    from hamjepa_jax.config.shipped import names

    shown, before = set(), ""
    for name in re.findall(r"`(\w+)`", "\n".join(table_of("docs/guides/training.md", "config"))):
        shown |= {before[:i] + name for i in range(len(before) + 1)}
        before = before if name.startswith("_") else name
    assert [name for name in names() if name not in shown and not name.startswith("cifar100_")] == []


def table_of(page, title):
    """The rows of the table whose first column has this title."""
    rows = (ROOT / page).read_text().partition(f"| {title} |")[2].splitlines()[2:]
    return list(itertools.takewhile(lambda row: row.startswith("|"), rows))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_to_files_lead_somewhere(page):
    for target, part in re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        aim = page.parent / target if target else page
        assert aim.exists(), target
        assert not part or part in parts_of(aim), f"{target}#{part}"


def parts_of(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_no_name_in_angle_brackets_is_lost_as_html(page):
    """`<class>` outside of code is a tag to a browser, which shows nothing of it."""
    text = re.sub(r"```.*?```|(`+).*?\1|<!--.*?-->|\$\$.*?\$\$|\$.*?\$", "", page.read_text(), flags=re.DOTALL)
    assert not re.findall(r"</?[a-z]\w*>", text)


def test_packages_to_install_are_named_in_one_way_that_works_without_a_clone():
    """In messages: pip install 'hamjepa-jax[EXTRA]', of an extra that there is."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = 0
    for file in (ROOT / "hamjepa_jax").rglob("*.py"):
        for hint in re.findall(r"pip install (\S+\[\S+)", file.read_text()):
            named = re.match(r"'hamjepa-jax\[([\w{}]+)\]'", hint)
            assert named and (named[1] in extras or named[1] == "{name}"), (file, hint)
            found += 1
    assert found >= 5


def test_messages_in_troubleshooting_are_said_by_the_package():
    package = "\n".join(file.read_text() for file in (ROOT / "hamjepa_jax").rglob("*.py"))
    entries = re.findall(r"^- \*\*(`.*?)\*\*", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    words = [part.strip(" `,:") for entry in entries for part in re.split("…|`, `|: ", entry)]
    assert len(entries) >= 5
    assert [word for word in words if word and word.split(".")[-1] not in package] == []


def test_the_guide_names_every_table_that_can_be_reproduced():
    from hamjepa_jax.experiments.tables import TABLES

    guide = (ROOT / "docs/guides/reproducing.md").read_text()
    assert [name for name in TABLES if f"`{name}`" not in guide] == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


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
    (tmp_path / "runs" / "first").rename(tmp_path / "runs" / "quickstart")  # The run of the guides.
    for text in blocks("guide"):
        run(text)
