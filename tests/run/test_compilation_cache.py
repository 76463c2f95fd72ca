"""Compiled programs are kept, so that the same run starts at once the next time."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hamjepa_jax.run.setup import lower_step, seeded, set_up
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
config.log.compilation_cache, config.seed = None, int(sys.argv[2])
config.train.epochs, config.optimizer.warmup = 1, "1 steps"
config.evaluate.every, config.evaluate.probe.epochs = "", 0
train(config, sys.argv[1])
print(json.dumps(counts))
"""


def start(workdir, seed=0):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    result = subprocess.run(
        [sys.executable, "-c", START, str(workdir), str(seed)], env=environment, capture_output=True, text=True
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
    # On a slower day the program of the first state is kept too, in which the seed is a constant.
    third = start(tmp_path / "third", seed=5)
    assert third["cache_hits"] >= 1 and kept_steps(tmp_path) == steps


def of_seed(config, seed):
    """A config's set-up on one device with its own seed, and its program with the first batch."""
    config = config.copy_and_resolve_references()
    config.seed = seed
    setup = set_up(config, devices=jax.devices()[:1])
    opened = setup.inputs.open()
    with contextlib.closing(opened.batches(0)) as batches:
        batch = next(batches)
    return setup, (opened.store, batch), lower_step(setup, opened.store, batch, donate=False)


@pytest.mark.parametrize("clips", [pytest.param(False, marks=pytest.mark.slow), True])
def test_seeds_share_a_program_that_gives_each_its_own_numbers(clips):
    config = tiny.quick("hamjepa")
    if clips:
        config.data.source = "trajectories:spring?train=60&test=10&frames=6&test_frames=6"
        config.data.image_size = 32
        config.views.stack, config.views.max_gap, config.predictor.kind = 2, 3, "mlp"
    (_, _, lowered), (setup, inputs, other) = of_seed(config, 0), of_seed(config, 2**31 - 1)
    assert lowered.as_text() == other.as_text()
    state, program = setup.init(), lowered.compile()
    _, found = seeded(setup, program)(state, *inputs)
    _, constant = jax.jit(setup.training.step)(state, *inputs)
    _, of_zero = program(jnp.zeros((), jnp.int32), state, *inputs)
    for name in ("total", "pred", "grad_norm"):
        np.testing.assert_allclose(found[name], constant[name], rtol=1e-4, err_msg=name)
        assert abs(of_zero[name] / found[name] - 1) > 1e-3, name


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
