"""The table of a step on slices of TPUs."""

import pytest

from hamjepa_jax.report.scaling import SCALING_HEADER, scaling_table


def report(topology, chips, least, most, **others):
    time = {"compute": 0.003, "array": 0.0045, "memory": 0.002, "links": 0.0, "least": least, "most": most}
    found = {"all-reduce": {"number": 30, "bytes": 20_000_000}, "all-gather": {"number": 8, "bytes": 1_500_000}}
    return {
        "topology": topology,
        "chips": chips,
        "batch_size": 128 * chips,
        "memory": {"state": 300_000_000, "temporaries": 200_000_000},
        "flops": 603e9,
        "traffic": {"operations": 900_000_000, "copies": 500_000_000, "slices": 400_000_000, "collectives": 0},
        "collectives": found if chips > 1 else {},
        "time": time,
    } | others


def test_a_line_says_both_ends_of_a_range():
    one, many = report("v5e:1x1", 1, 0.003, 0.006), report("v5e:4x4", 16, 0.004, 0.00625)
    same = report("v4:1x1x1", 1, 0.003, 0.003)
    header, rule, *lines = scaling_table({"reports": [one, many, same]}).splitlines()
    assert [header, rule] == SCALING_HEADER.splitlines()
    assert lines[0].startswith("| v5e:1x1 | 128 | 0.50 GB | 603 | 1.8 GB | 0, 0.0 MB | 3.00–4.50 ms | 2.00 ms |")
    assert lines[0].endswith("| 0.00 ms | 3.00–6.00 ms | 100% |")
    assert "| 2,048 |" in lines[1] and "| 38, 21.5 MB |" in lines[1]
    assert lines[1].endswith("| 4.00–6.25 ms | 75–96% |")
    assert lines[2].endswith("| 3.00 ms | 100% |")  # Against the first slice of its own chip.
    assert {line.count("|") for line in (header, *lines)} == {12}


def test_what_is_missing_is_named():
    with pytest.raises(KeyError, match="reports"):
        scaling_table({})
