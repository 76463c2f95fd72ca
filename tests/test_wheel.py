"""The wheel alone, in a fresh environment and an empty folder: it trains, goes on, evaluates, exports and loads."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parent.parent
SHORT = (
    "--config.optimizer.warmup=1 steps", "--config.evaluate.probe.epochs=1", "--config.evaluate.every=",
    "--config.data.source=shapes:300?test=50", "--config.train.batch_size=32", "--config.encoder.width=4",
    "--config.checkpoint.every=2 steps", "--config.log.every=1 steps", "--config.train.steps=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing of this folder can be missing unseen."""
    out = tmp_path_factory.mktemp("wheel")
    copied = shutil.ignore_patterns(".*", "runs", "tests", "__pycache__")
    shutil.copytree(ROOT, out / "source", ignore=copied)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={out}", out / "source"]
    subprocess.run(command, check=True, timeout=300)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory):
    """Folder of the programs of an environment that has the wheel; its dependencies are those of this one."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    places = {"base": str(environment), "platbase": str(environment)}
    packages = pathlib.Path(sysconfig.get_path("purelib", vars=places))
    # Its own packages come first; a .pth file adds this environment's, without the package that is edited here.
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    command = [sys.executable, "-m", "pip", f"--python={environment}", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(command, check=True, timeout=300)
    return environment / "bin"


@pytest.fixture
def run(scripts, tmp_path):
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words):
        done = subprocess.run(
            [scripts / words[0], *words[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=alone
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_it_has_the_package_and_its_configs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"hamjepa_jax"}
    shipped = {name.rpartition("/")[2] for name in names if name.startswith("hamjepa_jax/configs/")}
    assert shipped == {path.name for path in (ROOT / "configs").glob("*.py")}


def test_from_an_empty_folder_it_does_all_that_a_run_needs(run, tmp_path):
    assert "site-packages" in run("python", "-c", "import hamjepa_jax; print(hamjepa_jax.__file__)")
    train = ("hamjepa", "train", "--config=quickstart", "--workdir=run", *SHORT)
    run(*train)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")  # as if it had been killed after step 2
    said = run(*train)
    assert "step 4/4" in said and "step 2/4" not in said
    assert "(q,p)" in run("hamjepa", "evaluate", "run")
    run("python", "-m", "hamjepa_jax.evaluate", "run", "--out=again")
    run("hamjepa", "export", "run", "--out=exported")
    code = "import hamjepa_jax, numpy as np; z = hamjepa_jax.load('exported')(np.zeros((2, 32, 32, 3), np.uint8))"
    assert run("python", "-c", f"{code}; print(z.q.shape)").startswith("(2, ")
    command = json.loads((tmp_path / "run" / "run.json").read_text())["command"]
    assert command.startswith("python -m hamjepa_jax.main --config=quickstart")
    run("hamjepa", "import", "exported/torch.safetensors", "--out=imported", "--source=shapes:300?test=50")
    assert "(q,p)" in run("hamjepa", "evaluate", "imported", "--probe_epochs=1")


def test_a_sweep_is_run_from_an_empty_folder(run, tmp_path):
    change = {
        "optimizer.warmup": "1 steps", "evaluate.probe.epochs": 1, "evaluate.every": "", "train.batch_size": 32,
        "encoder.width": 4, "train.steps": 2, "data.source": "shapes:100?test=50",
    }  # fmt: skip
    grid = {"config": "quickstart", "override": change, "axes": {"predictor.step_size": [0.1]}, "seeds": [0]}
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    assert "step_size=0.1,seed=0" in run("hamjepa", "sweep", "grid.json", "--out=sweep", "--list")
    run("hamjepa", "sweep", "grid.json", "--out=sweep")
    assert "0.1" in (tmp_path / "sweep" / "report.md").read_text()


def test_the_other_commands_find_the_configs(run):
    assert "train.epochs = 45" in run("hamjepa", "config", "imagenet100")
    assert "cifar100_80" in run("hamjepa", "reproduce", "--help")
    assert "Traceback" not in run("python", "-m", "hamjepa_jax.main", "--config=imagenet100", "--help")
