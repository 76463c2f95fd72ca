"""Imports point one way, so that each part can be read and used without the ones above it."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "hamjepa_jax"

# What a part of the package may import of the package, beside itself.
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "folders": {"errors"},
    "parts": {"errors"},
    "distributed": {"errors"},
    "rng": set(),
    "dynamics": set(),
    "nn": {"dynamics"},
    "objectives": {"rng"},
    "data": {"cli", "errors", "folders", "rng"},  # cli: only data.prepare, a command
    "evaluation": {"rng"},
    "report": {"errors"},
    "interop": {
        "build",
        "cli",
        "config",
        "data",
        "errors",
        "evaluation",
        "files",
        "nn",
        "parts",
        "report",
        "restore",
        "run",
        "training",
    },
    "cli": {"config", "errors", "files", "training"},  # config: late, for --config; training: faults of a disk
    "aot": {"cli", "data", "errors", "files", "run", "training"},
    "benchmark": {"cli", "data", "errors", "evaluation", "restore", "run", "training"},
    # restore: only its command line, for --workdir
    "physics": {"cli", "dynamics", "errors", "files", "rng", "restore"},
    "theory": {"cli", "errors", "files", "physics"},  # physics.canvas: one look for all figures
    "training": {"config", "errors", "objectives"},
}
MAY_SEE_CONFIGS = {
    "config", "build", "diagnose", "inputs", "restore", "train", "train_seeds", "evaluate", "main",
    "evaluate_cli", "reproduce", "sweep", "runs", "command_line", "geometry",
}  # fmt: skip


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield parts[0], path


def imported(path):
    """Dotted names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_only_what_lies_below_it(part):
    for name, path in modules():
        if name != part:
            continue
        for target in imported(path):
            if target.startswith("hamjepa_jax."):
                other = target.split(".")[1]
                assert other == part or other in ALLOWED[part], f"{path.name} imports {target}"


def test_nobody_imports_configs_launchers_or_notebooks():
    for _, path in modules():
        tops = {target.split(".")[0] for target in imported(path)}
        assert not tops & {"configs", "launch", "colab", "tests"}, path


def test_tensorflow_is_imported_in_one_place_and_only_when_asked_for():
    users = [path for _, path in modules() if "tensorflow" in {target.split(".")[0] for target in imported(path)}]
    assert users == [PACKAGE / "data" / "tfdata.py"]
    at_import = [
        node for node in ast.parse(users[0].read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not any("tensorflow" in ast.unparse(node) for node in at_import)


def test_reports_need_no_jax():
    for name, path in modules():
        if name == "report":
            assert not {"jax", "flax"} & {target.split(".")[0] for target in imported(path)}, path


def test_every_part_is_listed():
    assert {name for name, _ in modules()} - {"__init__"} <= set(ALLOWED) | MAY_SEE_CONFIGS
