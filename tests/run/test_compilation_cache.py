"""Compiled programs are kept, so that the same run starts at once the next time."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from hamjepa_jax.run.workdir import use_compilation_cache

ROOT = pathlib.Path(__file__).parents[2]

# One start of a run, after some other computation, and how often JAX found a program or did not.
START = """
import json, sys
import jax
counts = {"cache_hits": 0, "cache_misses": 0}
def count(event, **_):
    name = event.rpartition("/")[2]
    if name in counts:
        counts[name] += 1
jax.monitoring.register_event_listener(count)
jax.numpy.ones(3).sum()
import tiny
from hamjepa_jax.train import train
config = tiny.get_config()
config.log.compilation_cache = None
config.train.epochs, config.optimizer.warmup = 1, "1 steps"
config.evaluate.every, config.evaluate.probe.epochs = "", 0
train(config, sys.argv[1])
print(json.dumps(counts))
"""


def start(workdir):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    result = subprocess.run(
        [sys.executable, "-c", START, str(workdir)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_second_start_of_a_run_compiles_no_step(tmp_path):
    first = start(tmp_path / "first")
    steps = kept_steps(tmp_path)
    assert len(steps) == 1 and first["cache_misses"] >= 1 and first["cache_hits"] == 0
    # Programs that are compiled in under a second are not kept, and may be counted as missed on a slower day.
    second = start(tmp_path / "second")
    assert second["cache_hits"] >= first["cache_misses"] and kept_steps(tmp_path) == steps


def kept_steps(folder):
    """The step's compiled programs in the cache beside the workdirs."""
    return {path.name for path in (folder / ".jax_cache").glob("jit_train_step-*-cache")}


@pytest.mark.parametrize("directory, expected", [(None, ".jax_cache"), ("elsewhere", "elsewhere"), ("", None)])
def test_where_programs_are_kept(directory, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = jax.config.jax_compilation_cache_dir
    try:
        use_compilation_cache(directory, tmp_path / "run")
        found = jax.config.jax_compilation_cache_dir
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert found == (before if expected is None else str(tmp_path / expected))
