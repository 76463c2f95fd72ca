"""A metric of your own, with a column of the tables and a panel of the figures."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from commands import looked_at, tabulated, trained

from hamjepa_jax import parts


@pytest.fixture(autouse=True)
def forgotten():
    """Other tests of this process measure what the package measures."""
    yield
    parts.metrics._parts.pop("mean_abs", None)


@pytest.mark.slow
def test_a_metric_is_one_file(tmp_path):
    metrics = trained("toy_metric", tmp_path / "run")
    assert metrics["q/mean_abs"] > 0
    assert "mean |z|" in (tmp_path / "run" / "table.txt").read_text()
    logged = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert sum("eval/qp/mean_abs" in record for record in logged) == 2  # At the end of each epoch.
    again, _ = looked_at(tmp_path / "run", tmp_path)
    assert again == metrics
    assert r"mean \|z\|" in tabulated("toy_metric", tmp_path / "table")
