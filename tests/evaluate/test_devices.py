"""Evaluating needs no batch that the devices divide: the training batch is a matter of training alone."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import tiny

from hamjepa_jax.train import train

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_a_run_is_evaluated_on_devices_that_do_not_divide_its_batch(tmp_path):
    config = tiny.quick()
    config.train.steps, config.evaluate.every = 4, ""
    expected = train(config, tmp_path / "run")["trained"]
    # The last flag of a name counts.
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=3"
    commands = {
        "evaluate": [str(tmp_path / "run"), f"--out={tmp_path / 'out'}"],
        "main": [f"--workdir={tmp_path / 'run'}", "--mode=evaluate"],
    }
    for name, arguments in commands.items():
        done = subprocess.run(
            [sys.executable, "-m", f"hamjepa_jax.{name}", *arguments],
            env=os.environ | {"XLA_FLAGS": flags}, cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["checkpoints"]
    again = json.loads((tmp_path / "run" / "metrics.json").read_text())["trained"]
    assert list(found["trained"]) == list(again) == list(expected)
    for key in ("q/mean_norm", "p/mean_norm"):
        assert abs(found["trained"][key] - expected[key]) < 1e-4 * expected[key]
    # Training on them is still refused.
    done = subprocess.run(
        [sys.executable, "-m", "hamjepa_jax.main", "--config=tests/tiny.py", f"--workdir={tmp_path / 'new'}"],
        env=os.environ | {"XLA_FLAGS": flags}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "train.batch_size 16: not divisible by 3 devices; use 15" in done.stderr
