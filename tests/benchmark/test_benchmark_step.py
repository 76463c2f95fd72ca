"""The benchmark of the training step: every part runs alone, and the counts are those of all devices."""

import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from hamjepa_jax import build
from hamjepa_jax.benchmark import __main__ as command
from hamjepa_jax.benchmark.step import benchmark_step
from hamjepa_jax.report.step_time import step_table


@pytest.mark.slow
def test_parts_and_counts(tiny_config):
    c = tiny_config  # with an objective that reads parameters of its own
    c.objective.name, c.objective.hamsigreg.kind, c.predictor.kind = "hamsigreg", "learnable", "identity"
    c.objective.lejepa.num_directions = 8
    c.views.jitter_prob = c.views.blur_prob = 0.0  # Less to compile.
    report = benchmark_step(c, rounds=1)
    assert {"step", "augmentation", "encoder", "predictor and floors", "optimiser"} <= set(report.seconds)
    assert min(report.seconds.values()) > 0
    # A step encodes all views and differentiates that, about three times the FLOPs of the encoding.
    model = build.build_model(c)
    params, batch_stats = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    views = jax.ShapeDtypeStruct((2 * 16, 8, 8, 3), jnp.float32)
    forwards = jax.jit(model.encode).lower(params, batch_stats, views).compile().cost_analysis()["flops"]
    assert report.flops > 2 * forwards


def test_numbers_as_json_with_the_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GIT_COMMIT", "0123456789abcdef")
    monkeypatch.setattr("subprocess.run", _no_git)
    tiny = pathlib.Path(__file__).parents[1] / "tiny.py"
    file = tmp_path / "step.json"
    lejepa = ["--config.objective.name=lejepa", "--config.predictor.kind=identity"]
    assert command.main(["step", f"--config={tiny}:quick", "--rounds=1", f"--json={file}", *lejepa]) == 0
    found = json.loads(file.read_text())
    assert found["seconds"]["step"] > 0 and found["flops"] > 0 and found["batch_size"] == 16
    assert found["git"] == {"commit": "0123456789abcdef", "modified": None}
    assert found["devices"] and " × " in found["processor"]
    assert " GB after fusion at " in capsys.readouterr().out  # The bytes are those of the compiled program.
    assert f"| step | {found['seconds']['step'] * 1e3:.2f} | 100% |" in step_table(found).splitlines()
    assert command.main(["input", str(tmp_path), f"--json={file}"]) == 2
    assert "--json: the benchmark 'input' does not use it" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told_before_any_work(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert command.main(["checkpoint", "--config=quickstart", f"--workdir={tmp_path}/file"]) == 2
    assert capsys.readouterr().err.startswith(f"error: --workdir {tmp_path}/file: cannot be made")


def _no_git(command, **_):
    raise FileNotFoundError(command[0])
