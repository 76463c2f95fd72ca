"""Test set-up: eight fake CPU devices and strict array promotion, set before JAX starts."""

import atexit
import os
import pathlib
import shutil
import tempfile
import zlib

# Eight fake devices; programs here run for milliseconds, so compiling fast beats compiling well: without LLVM's
# optimisations and, where XLA has that option (jaxlib 0.10), with the older and quicker way to emit fusions.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters",
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# A collective blocks a thread for every device, and the pool has as many threads as there are cores or devices: two
# collectives that do not wait for each other, one of them in a loop, would take all of them and never end.
os.environ.setdefault("PJRT_NPROC", "64")
# Within a session the same program is compiled once, whichever test, worker or subprocess asks for it first.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="hamjepa_jax_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import numpy as np
import pytest
import tiny

from hamjepa_jax.report import method_plots, neighbours, pictures, plots

jax.config.update("jax_numpy_rank_promotion", "raise")
GOLDENS = pathlib.Path(__file__).parent / "goldens"
# Files that take minutes come first, so that no worker is left alone with one at the end.
LONG_FILES = (
    "test_seeds.py", "test_processes.py", "test_run.py", "test_inputs.py", "test_trajectory.py",
    "test_compilation_cache.py", "test_step.py", "test_nan_search.py", "test_mesh.py", "test_broken_images.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


# Tests of figures, as parts of node ids; where all tests run, those of a real run too.
DRAWN = [
    "test_comparison.py::test_the_page_holds_its_figures", "test_comparison.py::test_a_grid",
    "tests/report/test_plots.py", "tests/metrics/", "tests/evaluate/test_evaluate.py::test_pictures",
    "tests/evaluation/test_neighbours.py",
]  # fmt: skip


def pytest_configure(config):
    if not config.option.markexpr:
        DRAWN.append("tests/evaluate/test_evaluate.py")


EMPTY_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b8"
    "0000000049454e44ae426082"
)


def save_where_looked_at(figure, path, save=plots.save):
    """Draws the figure into its files where a test looks at them; elsewhere that would be half of a run's time."""
    if any(part in os.environ.get("PYTEST_CURRENT_TEST", "") for part in DRAWN):
        return save(figure, path)
    png = pathlib.Path(path).with_suffix(".png")
    png.parent.mkdir(parents=True, exist_ok=True)
    png.write_bytes(EMPTY_PNG)
    return png


@pytest.fixture(scope="session", autouse=True)
def figures_are_drawn_where_looked_at():
    """In this process: programs that tests start draw all of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (plots, method_plots, neighbours, pictures):
            patch.setattr(module, "save", save_where_looked_at)
        yield


@pytest.fixture(scope="module", autouse=True)
def programs_of_a_file_are_forgotten():
    """A worker that kept the programs of all files would need gigabytes in the end."""
    yield
    jax.clear_caches()


def golden_random(name: str, *shape: int) -> np.ndarray:
    """Standard normal float64 array of the golden files' rule: the generator is seeded with crc32 of the name."""
    return np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).randn(*shape)


def golden_weight(name, shape):
    """The golden files' rule: weights from the torch name."""
    a = golden_random(name, *shape)
    if name.endswith("running_var"):
        return 0.5 + np.abs(a)
    if name.endswith(("running_mean", "bias")):
        return 0.1 * a
    return 1 + 0.1 * a if len(shape) == 1 else a * np.sqrt(2 / np.prod(shape[1:]))


@pytest.fixture(scope="session")
def goldens():
    """Returns load(name) -> dict of arrays of tests/goldens/<name>.npz and, of a large one, <name>_<part>.npz."""

    def load(name):
        arrays = {}
        for path in [GOLDENS / f"{name}.npz", *GOLDENS.glob(f"{name}_*.npz")]:
            with np.load(path, allow_pickle=False) as z:
                arrays |= {k: z[k] for k in z.files}
        return arrays

    return load


@pytest.fixture
def tiny_config():
    """The config of tests/tiny.py."""
    return tiny.get_config()


@pytest.fixture
def quick_config():
    """That of tests/tiny.py for what surrounds a step."""
    return tiny.quick()


@pytest.fixture
def x64():
    """Runs the test in double precision."""
    with jax.enable_x64(True):
        yield
