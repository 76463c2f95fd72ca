"""Differences, geometry and times of methods, from a results.json; the tables of training steps."""

import pytest

from hamjepa_jax.report.details import differences_table, geometry_table, times_table
from hamjepa_jax.report.step_time import against_torch_table, step_table


def test_paired_differences_stand_with_interval_and_p():
    what = {"method": "hamjepa", "readout": "q", "against": "sigreg", "its_readout": "z"}
    tested = {"difference": 4.744, "low": 3.58, "high": 5.9, "p": 0.00321, "seeds": [0, 1, 2]}
    other = what | {"readout": "p", "difference": -0.5, "seeds": [0]}
    differences = [
        what | {"metric": "kNN@20"} | tested,
        what | {"metric": "Linear probe"} | tested | {"p": 1e-6},
        other | {"metric": "kNN@20"},
        other | {"metric": "Linear probe"},
    ]
    lines = differences_table({"differences": differences}).splitlines()
    assert lines[:4] == [
        "| difference | kNN@20 | p | Linear probe | p | seeds |",
        "| :-- | --: | --: | --: | --: | --: |",
        "| HamJEPA q − SIGReg z | +4.74 [+3.58, +5.90] | 0.0032 | +4.74 [+3.58, +5.90] | < 0.0001 | 3 |",
        "| HamJEPA p − SIGReg z | −0.50 | – | −0.50 | – | 1 |",
    ]


def test_geometry_has_no_accuracy():
    def metrics(*ranks):
        one = {"values": [0.5] * len(ranks)}
        knn, flat = "knn_top1_k20_cosine_majority", {"values": [10.0] * len(ranks)}
        return {knn: one, "effective_rank_top256": {"values": ranks}, "mean_cosine": one, "mean_norm": flat}

    content = {
        "results": {"hamjepa": {"q": metrics(12.0, 14.0)}, "sigreg": {"z": metrics(7.0)}},
        "references": {"hamjepa": {"raw pixels": metrics(3.0, 3.0)}},
    }
    assert geometry_table(content).splitlines()[:5] == [
        "| features | effective rank | mean cosine | mean norm | seeds |",
        "| :-- | --: | --: | --: | --: |",
        "| HamJEPA q | 13.0 ± 1.4 | 0.500 ± 0.000 | 10.0 ± 0.0 | 2 |",
        "| raw pixels | 3.0 ± 0.0 | 0.500 ± 0.000 | 10.0 ± 0.0 | 2 |",
        "| SIGReg z | 7.0 | 0.500 | 10.0 | 1 |",
    ]


def test_times_are_medians_with_least_and_most():
    runs = [{"name": "hamjepa", "wall_s": s, "images_per_s": 10 * s} for s in (100.0, 300.0, 1250.0)]
    runs += [{"name": "mlp", "wall_s": None, "images_per_s": 7.0}]
    assert times_table({"results": {"hamjepa": {}, "mlp": {}}, "runs": runs}).splitlines()[2:] == [
        "| HamJEPA | 300 (100–1,250) | 3,000 (1,000–12,500) | 3 |",
        "| MLP predictor | – | 7 | 1 |",
    ]


def test_a_step_stands_beside_the_roofline():
    content = {
        "seconds": {"step": 0.02, "encoder": 0.015},
        "devices": ["H200"],
        "batch_size": 512,
        "views": 2,
        "flops": 4e12,
        "peak_flops": 8e14,
        "bytes": 1.6e10,
        "peak_bandwidth": 2e12,
    }
    lines = step_table(content).splitlines()
    assert lines[2:6] == [
        "| step | 20.00 | 100% |",
        "| encoder | 15.00 | 75% |",
        "| arithmetic at the peak | 5.00 | 25% |",
        "| memory traffic at the peak | 8.00 | 40% |",
    ]
    assert lines[-1].startswith("1 × H200, 512 images in 2 views, 25,600 images/s.")


@pytest.mark.parametrize("ratio", [2.5, 0.8])
def test_an_encoder_beside_pytorch_s(ratio):
    content = {
        "median_seconds": {"step": 1.8, "encoder": 1.75, "encoder in PyTorch": 1.75 / ratio},
        "seconds": {"step": [1.8] * 7},
        "processor": "2 × X",
        "torch": "2.9",
        "dtype": "float32",
        "batch_size": 32,
        "views": [[2, 24, 32, 3]],
        "ratio_of_encoders": ratio,
    }
    lines = against_torch_table(content).splitlines()
    assert lines[2:5] == ["| step | 1.80 |", "| encoder | 1.75 |", f"| encoder in PyTorch | {1.75 / ratio:.2f} |"]
    assert "2 views of 24 × 32 pixels; medians of 7 rounds" in lines[-1]
    assert lines[-1].endswith(f"takes {ratio:.2f} times as long as PyTorch's.")
