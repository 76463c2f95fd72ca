"""A trunk of your own, without batch statistics."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from commands import looked_at, tabulated, trained

from hamjepa_jax.run.restore import load_run

FIELDS = ("encoder.trunk=toy_transformer", "encoder.mode=global", "encoder.embed_dim=16")


@pytest.mark.slow
def test_a_trunk_is_one_file(tmp_path):
    metrics = trained("toy_trunk", tmp_path / "run", *FIELDS, "encoder.toy_transformer.width=16")
    run = load_run(tmp_path / "run")
    assert run.config.encoder.toy_transformer.width == 16
    assert run.state.batch_stats == {"encoder": {}}
    assert run.state.params["encoder"]["trunk"]["Conv_0"]["kernel"].shape == (2, 2, 3, 16)
    again, encoder = looked_at(tmp_path / "run", tmp_path)
    assert again == metrics
    assert encoder.config.encoder.trunk == "toy_transformer"
    fields = [tuple(field.split("=")) for field in FIELDS[:2]]
    assert "learning_rate" in tabulated("toy_trunk", tmp_path / "table", *fields, ("encoder.embed_dim", 16))
