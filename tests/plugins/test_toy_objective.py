"""An objective of your own, with parameters of its own."""

import pathlib
import sys

import jax.numpy as jnp
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from commands import looked_at, tabulated, trained

from hamjepa_jax.run.restore import load_run

FIELDS = ("objective.name=toy_matrix", "predictor.kind=identity", "encoder.trunk=one_conv")


@pytest.mark.slow
def test_an_objective_is_one_file(tmp_path):
    metrics = trained("toy_objective", tmp_path / "run", *FIELDS, "objective.toy_matrix.spread_weight=2.5")
    run = load_run(tmp_path / "run")
    assert run.config.objective.toy_matrix.spread_weight == 2.5
    matrix = run.state.params["toy_matrix"]
    assert matrix.shape == (64, 64) and jnp.abs(matrix - 0.9 * jnp.eye(64)).max() > 1e-4  # It was trained.
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"train/spread"' in log
    again, _ = looked_at(tmp_path / "run", tmp_path)
    assert again == metrics
    assert "Toy" in (tmp_path / "export" / "README.md").read_text()
    assert "learning_rate" in tabulated("toy_objective", tmp_path / "table", *(f.split("=") for f in FIELDS))
