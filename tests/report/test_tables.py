import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from hamjepa_jax.report import comparison_table, headline_accuracies, markdown_table, mean_std, paired_t_test


def metrics(knn20, probe=None):
    found = {
        "knn_top1_k20_cosine_majority": knn20,
        "knn_top1_k5_cosine_majority": 0.3,
        "knn_top5_k20_cosine_majority": 1.0,
    }
    if probe is not None:
        found |= {"probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50": probe, "effective_rank_top256": 125.61}
    return found


ROWS = {"q": metrics(0.3145, 0.33951), "untrained (q,p)": metrics(0.1), "raw pixels": {}}


def test_columns_are_aligned_and_name_their_protocol():
    lines = comparison_table(ROWS).splitlines()
    assert len({len(line) for line in lines[:6]}) == 1 and max(map(len, lines)) <= 120
    assert lines[2].split() == ["q", "31.45", "31.45", "(20)", "33.95", "125.6"]
    assert lines[3].split() == ["untrained", "(q,p)", "10.00", "30.00", "(5)", "–", "–"]
    assert lines[4].split() == ["raw", "pixels", "–", "–", "–", "–"]
    note = " ".join(lines[6:])
    assert "adamw_lr0.001_wd1e-06_bs256_ep50" in note and "top 256" in note


def test_the_k_of_the_headline_can_be_chosen():
    assert comparison_table(ROWS, headline_k=5).splitlines()[2].split()[1] == "30.00"


def test_the_first_column_has_a_k_that_was_measured():
    few = {"q": {"knn_top1_k1_cosine_majority": 0.4, "knn_top1_k5_cosine_majority": 0.3}}
    lines = comparison_table(few).splitlines()
    assert lines[0].split()[1] == "kNN@5" and lines[2].split()[1] == "30.00"
    assert list(headline_accuracies({f"q/{key}": x for key, x in few["q"].items()}).values()) == [0.3]


def test_seeds_become_mean_and_deviation():
    table = comparison_table({"q": [metrics(0.31, 0.33), metrics(0.32, 0.35)], "p": metrics(0.2)})
    row = table.splitlines()[2]
    assert "31.50 ± 0.71" in row and "34.00 ± 1.41" in row and "125.6 ± 0.0" in row
    assert "20.00" in table.splitlines()[3] and "over seeds" in table


def test_probes_of_different_protocols_never_share_a_column():
    other = {"probe_top1_adamw_lr0.01_wd1e-06_bs256_ep50": 0.9}
    assert comparison_table({"q": metrics(0.3, 0.4), "p": other}).splitlines()[3].split() == [
        "p",
        "–",
        "–",
        "–",
        "–",
    ]


def test_markdown_has_the_same_cells():
    lines = markdown_table(ROWS).splitlines()
    assert lines[0].startswith("| features | kNN@20 % |") and set(lines[1]) == set("| :-")
    assert lines[2] == "| q | 31.45 | 31.45 (20) | 33.95 | 125.6 |"


def test_paired_t_test_agrees_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(5) + 0.5, rng.standard_normal(5)
    found, expected = paired_t_test(a, b), stats.ttest_rel(a, b)
    np.testing.assert_allclose(
        [found["t"], found["p"], found["difference"]], [expected.statistic, expected.pvalue, np.mean(a - b)]
    )
    assert found["dof"] == 4
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose([found["low"], found["high"]], [interval.low, interval.high])
    assert paired_t_test([1.0, 2.0], [1.0, 2.0])["p"] == 1.0
    assert paired_t_test([2.0, 3.0], [1.0, 2.0])["p"] == 0.0
    # Equal but for rounding: 0.1 and 0.1 + 3e-17.
    assert paired_t_test([0.3, 0.4], [0.2, 0.3]) == pytest.approx(
        {"difference": 0.1, "low": 0.1, "high": 0.1, "t": np.inf, "p": 0.0, "dof": 1}
    )
    with pytest.raises(ValueError, match="got 2 and 1"):
        paired_t_test([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="at least one"):
        mean_std([])


def test_report_never_imports_jax():
    code = "import sys, hamjepa_jax.report; sys.exit('jax' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_equal_differences_have_no_deviation_and_a_point_for_an_interval():
    found = paired_t_test([3.0, 5.0], [1.0, 3.0])
    assert found == {"difference": 2.0, "low": 2.0, "high": 2.0, "t": np.inf, "p": 0.0, "dof": 1}
    assert paired_t_test([1.0, 3.0], [3.0, 5.0])["t"] == -np.inf
    assert paired_t_test([1.0, 3.0], [1.0, 3.0])["t"] == 0.0
