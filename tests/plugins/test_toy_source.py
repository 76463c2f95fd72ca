"""A source of your own."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from commands import looked_at, tabulated, trained

from hamjepa_jax.run.restore import load_run


@pytest.mark.slow
def test_a_source_is_one_file(tmp_path):
    metrics = trained("toy_source", tmp_path / "run", "data.source=toy_noise:96")
    assert metrics["q/knn_top1_k5_cosine_majority"] > 0.7  # Dark and bright are told apart.
    assert load_run(tmp_path / "run").source.train.class_names == ("dark", "bright")
    again, _ = looked_at(tmp_path / "run", tmp_path)
    assert again == metrics
    assert "toy_noise:96" in tabulated("toy_source", tmp_path / "table", ("data.source", "toy_noise:96"))
