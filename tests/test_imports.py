"""Imports point one way, without a circle, so that each part can be read and used without the ones above it."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "hamjepa_jax"

# What each room, or module at the root, may import of the package beside itself. A name stands for all below it.
ALLOWED = {
    # Leaves.
    "errors": (),
    "rng": (),
    "dynamics": (),
    "parts": ("errors",),
    "files": ("errors",),
    "disk": ("errors",),
    # Parts and pure functions.
    "nn": ("dynamics", "errors", "parts"),
    "objectives": ("errors", "parts", "rng"),
    "data": ("cli", "errors", "files", "parts", "rng"),  # cli: the command data.prepare
    "metrics": ("errors", "evaluation", "parts"),  # evaluation: inside the measuring functions
    "evaluation": ("metrics", "parts", "rng"),
    # cli: the command; config: read when a run is read, since it imports jax.
    "report": ("cli", "config", "errors", "files", "metrics"),
    # nn, objectives: for encoders that are trained; run: the environment of their numbers.
    "theory": ("cli", "files", "nn", "objectives", "parts", "physics.canvas", "rng", "run"),
    "physics": ("cli", "dynamics", "errors", "files", "rng", "run"),  # run: the command, for --workdir
    # A run.
    "config": ("cli", "data", "errors", "metrics", "nn", "objectives", "parts"),  # some by name: `default.BUILT_IN`
    "training": ("disk", "errors", "evaluation", "files", "metrics", "nn.sharing", "objectives"),
    "build": ("config", "data", "errors", "nn", "objectives", "parts", "rng", "training"),
    "run": (
        "build", "config", "data", "errors", "evaluation", "files", "nn", "objectives", "parts", "rng", "training",
    ),
    "evaluate": (
        "build", "cli", "config", "data", "disk", "errors", "evaluation", "files", "metrics", "objectives", "parts",
        "physics", "report", "run", "training",
    ),
    "train": ("config", "data", "errors", "evaluate", "files", "nn", "objectives", "run", "training"),
    # Commands.
    "cli": ("config", "disk", "errors", "files"),
    "main": ("cli", "config", "errors", "evaluate", "run", "train"),
    "benchmark": (
        "build", "cli", "data", "errors", "evaluation", "files", "interop.torch", "objectives", "parts", "run",
        "train", "training",
    ),
    "aot": ("cli", "data", "errors", "files", "report", "run"),
    "experiments": (
        "build", "config", "data", "errors", "evaluate", "files", "metrics", "report", "run", "train",
    ),
    "transfer": (
        "cli", "data", "errors", "evaluate", "evaluation", "files", "objectives", "parts", "report", "run", "train",
    ),
    "reproduce": ("cli", "experiments"),
    "sweep": ("cli", "experiments"),
    "interop": (
        "build", "cli", "config", "data", "errors", "evaluation", "files", "nn", "parts", "report", "run",
        "training",
    ),
    "__init__": ("interop",),
}  # fmt: skip
# A ConfigDict reaches these only; parts get plain values.
MAY_SEE_CONFIGS = {
    "config", "build", "run", "evaluate", "benchmark", "aot", "train", "main", "experiments", "interop", "cli",
}  # fmt: skip


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@functools.cache
def modules():
    """{dotted name below the package: its file}."""
    return {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def imported(path):
    """Dotted names that a file imports, wherever in the file."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(names)


def module_of(target):
    """The module of this package that an imported name is, or is in; None for other packages."""
    top, _, name = target.partition(".")
    if top != "hamjepa_jax":
        return None
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or "__init__"


def room_of(name):
    return name.partition(".")[0]


@pytest.mark.parametrize("name", modules())
def test_a_module_imports_only_from_the_rooms_below_it(name):
    room = room_of(name)
    for target in filter(None, map(module_of, imported(modules()[name]))):
        allowed = any(target == a or target.startswith(f"{a}.") for a in ALLOWED[room])
        assert allowed or room_of(target) == room, f"{name} imports {target}"


def test_every_room_is_listed():
    assert {room_of(name) for name in modules()} == set(ALLOWED)


def test_there_is_no_circle():
    """An import of a name re-exported by a package counts as one of the package, not of all that is in it."""
    edges = {
        name: {t for t in map(module_of, imported(path)) if t and t != name} for name, path in modules().items()
    }
    done, path = set(), []

    def visit(name):
        assert name not in path, f"circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name in done:
            return
        path.append(name)
        for target in sorted(edges[name]):
            visit(target)
        done.add(path.pop())

    for name in edges:
        visit(name)


def test_a_config_reaches_only_those_who_wire():
    for name, path in modules().items():
        uses = any(target.split(".")[0] == "ml_collections" for target in imported(path))
        assert not uses or room_of(name) in MAY_SEE_CONFIGS, name


def test_the_root_has_ten_modules_at_most():
    assert len([path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]) <= 10


def test_nobody_imports_configs_launchers_or_notebooks():
    for path in modules().values():
        tops = {target.split(".")[0] for target in imported(path)}
        assert not tops & {"configs", "launch", "colab", "tests"}, path


def test_tensorflow_is_imported_in_one_place_and_only_when_asked_for():
    users = [p for p in modules().values() if "tensorflow" in {target.split(".")[0] for target in imported(p)}]
    assert [path.name for path in users] == ["tfdata.py"]
    at_import = [
        node for node in ast.parse(users[0].read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not any("tensorflow" in ast.unparse(node) for node in at_import)


def test_training_imports_on_systems_without_posix_locks():
    users = [path for path in modules().values() if "fcntl" in {target.split(".")[0] for target in imported(path)}]
    assert not users


def test_reports_need_no_jax():
    for name, path in modules().items():
        at_import = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
        tops = {(getattr(n, "module", None) or n.names[0].name).split(".")[0] for n in at_import}
        if room_of(name) in ("report", "metrics") or name in ("parts", "config.free"):
            assert not {"jax", "flax"} & tops, path


SLOW = {
    "huggingface_hub",
    "matplotlib",
    "mlflow",
    "scipy",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "wandb",
}
# Import what draws, so they are imported by the functions that need them.
DRAW = {"physics.animations", "physics.figures", "physics.gallery", "theory.figures"}


def test_slow_packages_are_imported_when_they_are_needed():
    """A run that does not draw, compare means or open a TFDS set never pays for these packages."""
    names = [f"hamjepa_jax.{name}" for name in modules() if name not in {"__init__", *DRAW}]
    code = (
        "import importlib, sys\n"
        f"slow = {SLOW}\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    assert not slow & set(sys.modules), (name, slow & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
