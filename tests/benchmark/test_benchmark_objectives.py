"""The cost of objectives: each beside the same encoder, those that do not fit it left out with their reason."""

import pathlib

import pytest
import tiny

from hamjepa_jax import parts
from hamjepa_jax.benchmark.objectives import _of, benchmark_objectives, describe

TOY_OBJECTIVE = str(pathlib.Path(__file__).parents[1] / "plugins" / "toy_objective.py")


def test_a_ratio_is_of_the_same_round():
    times = {"encoder": [1.0, 4.0, 2.0], "a": [0.1, 0.8, 0.2], "a, drawing": [0.4, 0.0, 0.0]}
    found = _of(times, "a", 4, [0.5, 0.0, 0.0])
    # Losses 0.2, 0.8, 0.2 with a quarter of a drawing; with the teacher 0.7 of 1, 0.8 of 4, 0.2 of 2.
    assert found == pytest.approx({"loss": 0.2, "teacher": 0.0, "ratio": 0.2})


@pytest.mark.slow
def test_every_objective_is_timed_or_left_out_with_its_reason():
    parts.load_plugins([TOY_OBJECTIVE])  # Not one of the config's plugins, so its objective is not one of these.
    config = tiny.quick("hamjepa")
    config.objective.byol.predictor_hidden = 16
    report = benchmark_objectives(config, rounds=1)
    assert set(report.objectives) | set(report.left_out) == {part.name for part in parts.objectives.parts(())}
    assert set(report.left_out) == {"i_jepa", "classification"}  # The latter needs to know the classes.
    assert "objective.name 'i_jepa'" in report.left_out["i_jepa"]
    assert {name for name, times in report.objectives.items() if times["teacher"]} == {"byol", "simdino"}
    for times in report.objectives.values():
        assert times["ratio"] == pytest.approx((times["loss"] + times["teacher"]) / report.encoder)
    assert (report.batch_size, report.views, report.embed_dim) == (16, 2, 64)
    assert "left out: objective.name 'i_jepa'" in describe(report)
