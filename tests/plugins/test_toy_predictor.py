"""A predictor of your own."""

import pathlib
import sys

import jax.numpy as jnp
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from commands import looked_at, tabulated, trained

from hamjepa_jax.run.restore import load_run

FIELDS = ("predictor.kind=toy_rotation", "encoder.trunk=one_conv")


@pytest.mark.slow
def test_a_predictor_is_one_file(tmp_path):
    metrics = trained(
        "toy_predictor", tmp_path / "run", *FIELDS, "predictor.toy_rotation.angle=0.3", "evaluate.flow=2"
    )
    run = load_run(tmp_path / "run")
    assert run.config.predictor.toy_rotation.angle == pytest.approx(0.3)
    angle = run.state.params["predictor"]["angle"]
    assert angle.shape == (32,) and 1e-5 < jnp.abs(angle - 0.3).max() < 0.1  # It was trained.
    assert metrics["flow/max_symplectic_defect"] < 1e-5  # A rotation is symplectic.
    again, _ = looked_at(tmp_path / "run", tmp_path)
    assert again.items() <= metrics.items()
    assert "learning_rate" in tabulated("toy_predictor", tmp_path / "table", *(f.split("=") for f in FIELDS))
