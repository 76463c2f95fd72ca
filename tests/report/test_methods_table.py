"""The table of methods, from a results.json."""

from hamjepa_jax.report.methods import matched_table, methods_table

KNN, PROBE = "knn_top1_k20_cosine_majority", "probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50"


def numbers(knn, probe):
    return {KNN: {"values": knn}, PROBE: {"values": probe}, "uniformity": {"values": [0.0] * len(knn)}}


def run(devices, commit, day):
    git = {"commit": commit, "modified": False}
    about = {"devices": devices, "backend": "gpu", "versions": {"jax": "0.11.2"}, "git": git, "time": day}
    return {"environment": about}


def test_rows_published_numbers_and_origin():
    content = {
        "title": "CIFAR-100, 30 epochs",
        "data": {"source": "cifar100:/data"},
        "protocol": {"knn": KNN, "probe": PROBE},
        "results": {
            "sigreg": {"z": numbers([0.26], [0.30])},
            "hamjepa": {"q": numbers([0.31, 0.33], [0.34, 0.34])},
        },
        "references": {"hamjepa": {"untrained q": numbers([0.10, 0.10], [0.12, 0.14])}},
        "published": [{"method": "hamjepa", "readout": "q", "knn": {"mean": 31.45, "std": 0.27}}],
        "runs": [run(["H200"], "0123456789abc", "2026-11-26T01"), run(["H200"], "0123456789abc", "2026-11-27T01")],
    }
    assert methods_table(content).splitlines() == [
        "| features | kNN@20 % | Linear probe % | published kNN@20 % | seeds |",
        "| :-- | --: | --: | --: | --: |",
        "| SIGReg z | 26.00 | 30.00 | – | 1 |",
        "| HamJEPA q | 32.00 ± 1.41 | 34.00 ± 0.00 | 31.45 ± 0.27 | 2 |",
        "| HamJEPA untrained q | 10.00 ± 0.00 | 13.00 ± 1.41 | – | 2 |",
        "",
        "CIFAR-100, 30 epochs, data `cifar100`: 1 × H200, jax 0.11.2, commit 0123456789, 2026-11-26, 2026-11-27.",
    ]


def test_many_methods_with_differences_from_the_first_and_seconds():
    def difference(readout, metric, **test):
        return {
            "method": "hamjepa",
            "readout": readout,
            "against": "byol",
            "its_readout": "z",
            "metric": metric,
        } | test

    content = {
        "title": "Drawn shapes",
        "command": "python -m hamjepa_jax.reproduce",
        "data": {"source": "shapes:30"},
        "protocol": {"knn": KNN, "probe": PROBE},
        "results": {
            "hamjepa": {"q": numbers([0.31, 0.33], [0.34, 0.34]), "p": numbers([0.1, 0.1], [0.2, 0.2])},
            "byol": {"z": numbers([0.26, 0.27], [0.30, 0.34])},
        },
        "references": {"hamjepa": {"raw pixels": numbers([0.10, 0.10], [0.12, 0.14])}},
        "differences": [
            difference("q", "kNN@20", difference=5.5, low=-0.85, high=11.85, p=0.06),
            difference("q", "Linear probe", difference=2.0),
            difference("p", "kNN@20", difference=-16.5, low=-18.0, high=-15.0, p=0.01),
        ],
        "runs": [
            run(["H200"], "0123456789abc", "2026-11-26T01") | {"name": name, "wall_s": seconds}
            for name, seconds in (("hamjepa", 10.0), ("hamjepa", 20.4), ("byol", None))
        ],
    }
    assert matched_table(content).splitlines() == [
        "| features | kNN@20 % | difference | Linear probe % | difference | seconds | seeds |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
        "| HamJEPA q | 32.00 ± 1.41 | – | 34.00 ± 0.00 | – | 15 | 2 |",
        "| HamJEPA p | 10.00 ± 0.00 | – | 20.00 ± 0.00 | – | 15 | 2 |",
        "| raw pixels | 10.00 ± 0.00 | – | 13.00 ± 1.41 | – | – | 2 |",
        "| BYOL z | 26.50 ± 0.71 | −5.50 [−11.85, +0.85] | 32.00 ± 2.83 | −2.00 | – | 2 |",
        "",
        "Differences: points above HamJEPA q, paired by seed, 95% intervals. Seconds: the median run's wall time.",
        "",
        "Drawn shapes, data `shapes:30`: 1 × H200, jax 0.11.2, commit 0123456789, 2026-11-26. "
        "`python -m hamjepa_jax.reproduce`",
    ]
