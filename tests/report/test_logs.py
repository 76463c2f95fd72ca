import math

import pytest

from hamjepa_jax.errors import UserError
from hamjepa_jax.report import read_history, read_metrics, select, series


def test_a_line_cut_off_at_the_end_is_left_out_silently(tmp_path, recwarn):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "train/total": 0.5}\n\n{"step": 2, "train/total": NaN}\n{"step": 3, "train/to')
    records = read_history(path)
    assert [r["step"] for r in records] == [1, 2]
    assert math.isnan(records[1]["train/total"])
    assert not recwarn.list


def test_a_damaged_line_inside_is_left_out_with_a_warning(tmp_path):
    path = tmp_path / "metrics.jsonl"
    damaged = [
        '{"step": 2, "tra{"step": 2}',
        "7",
        '{"a": 1}',
        '{"step": "2"}',
        '{"step": 2, "a": "b"}',
        "[" * 10**5,
    ]
    path.write_text("\n".join(['{"step": 1}', *damaged, '{"step": 3}']))
    with pytest.warns(UserWarning, match=r"line [2-7]:") as caught:
        assert [r["step"] for r in read_history(path)] == [1, 3]
    assert len(caught) == len(damaged)


def test_of_a_step_logged_twice_the_later_value_counts():
    history = [
        {"step": 5, "epoch": 1, "a": 1.0},
        {"step": 9, "a": 2.0},
        {"step": 5, "epoch": 1, "a": None},
        {"a": 3.0},
    ]
    steps, values = series(history, "a")
    assert steps == [5, 9] and math.isnan(values[0]) and values[1] == 2.0
    assert series(history, "a", "epoch")[0] == [1]
    assert series(history, "b") == ([], [])


def test_metrics_of_one_readout(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"q/mean_norm": 1.0, "qp/mean_norm": 2.0}')
    assert select(read_metrics(path), "q") == {"mean_norm": 1.0}


def test_missing_and_damaged_files_are_named(tmp_path):
    for read in (read_history, read_metrics):
        with pytest.raises(UserError, match=r"absent.*no such file"):
            read(tmp_path / "absent")
    for text in ("{", "[1]"):
        (tmp_path / "metrics.json").write_text(text)
        with pytest.raises(UserError, match=r"metrics\.json"):
            read_metrics(tmp_path / "metrics.json")
