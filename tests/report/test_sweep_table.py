"""The table of a grid of settings, from a results.json."""

from hamjepa_jax.report.sweeps import sweep_table

KNN = "knn_top1_k20_cosine_majority"


def cell(size, readout, metrics):
    return {"cell": {"predictor.step_size": size}, "readout": readout, "seeds": [0, 1], "metrics": metrics}


def test_accuracies_of_the_first_readout_the_flow_and_the_origin():
    git = {"commit": "0123456789abc", "modified": False}
    about = {
        "devices": ["CPU"],
        "backend": "cpu",
        "processor": "2 × Fast",
        "versions": {"jax": "0.11.2"},
        "git": git,
    }
    content = {
        "grid": {"config": "configs/quickstart.py", "axes": {"predictor.step_size": [0.1, 0.2]}, "seeds": [0, 1]},
        "protocol": {"knn": KNN},
        "cells": [
            cell(0.1, "q", {KNN: [0.5, 0.7], "mean_norm": [1.0, 1.0]}),
            cell(0.1, "p", {KNN: [0.1, 0.1]}),
            cell(0.1, "flow", {"mean_abs_log_abs_det": [1e-7, 3e-7]}),
            cell(0.2, "q", {KNN: [0.5, 0.5]}),
        ],
        "runs": [{"environment": about | {"time": "2026-11-26T01"}}],
    }
    assert sweep_table(content).splitlines() == [
        r"| `predictor.step_size` | kNN@20 % of q | mean \|log\|det J\|\| |",
        "| --: | --: | --: |",
        "| 0.1 | 60.00 ± 14.14 | 2.0e-07 ± 1.4e-07 |",
        "| 0.2 | 50.00 ± 0.00 | – |",
        "",
        "`configs/quickstart.py`, seeds 0, 1: 2 × Fast, jax 0.11.2, commit 0123456789, 2026-11-26.",
    ]


def test_cells_may_differ_in_readouts_and_in_what_was_measured():
    content = {
        "grid": {"config": "quickstart", "axes": {"predictor.step_size": [0.1, 0.2, 0.3]}, "seeds": [0]},
        "protocol": {"knn": KNN},
        "cells": [cell(0.1, "q", {KNN: [0.5]}), cell(0.2, "z", {KNN: [0.25]}), cell(0.3, "z", {"rankme": [3.0]})],
        "runs": [],
    }
    assert sweep_table(content).splitlines()[:5] == [
        "| `predictor.step_size` | readout | kNN@20 % |",
        "| --: | --: | --: |",
        "| 0.1 | q | 50.00 |",
        "| 0.2 | z | 25.00 |",
        "| 0.3 | z | – |",
    ]
