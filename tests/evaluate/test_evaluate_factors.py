"""`evaluate --factors` on tiny runs on drawn shapes: seeds together, before and after the flow, refusals."""

import json
import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

from hamjepa_jax.evaluate.__main__ import main
from hamjepa_jax.evaluate.factors import _method_names
from hamjepa_jax.evaluation import factors
from hamjepa_jax.interop.workdirs import fresh_state, write_workdir
from hamjepa_jax.report.factors import factors_table

FACTORS = {"class", "x", "y", "size", "rotation", "hue", "background_hue", "bright"}


@pytest.fixture(autouse=True)
def small_probes(monkeypatch):
    """The MLP probes' own numbers are tests/evaluation/test_factors.py's; here they need not be good."""
    monkeypatch.setattr(factors, "EPOCHS", 3)
    monkeypatch.setattr(factors, "HIDDEN", 8)


def tiny_shapes():
    config = tiny.quick("hamjepa")
    config.data.source, config.data.image_size, config.encoder.token_hw = "shapes:160?test=80", 32, 2
    config.evaluate.probe.epochs = 0
    config.train.epochs, config.evaluate.every, config.checkpoint.every = 1, "", "1 epochs"
    return config


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """Workdirs of HamJEPA with two seeds, the second of which has the first one's weights, and of SIGReg."""
    folder = tmp_path_factory.mktemp("runs")
    isotropic = tiny_shapes()
    isotropic.objective.name, isotropic.predictor.kind, isotropic.encoder.split_qp = "lejepa", "identity", False
    isotropic.checkpoint.best_metric = "z/knn_top1_k5_cosine_majority"
    for name, config in (("a0", tiny_shapes()), ("b0", isotropic)):
        write_workdir(folder / name, config, fresh_state(config), {"file": "none"})
    shutil.copytree(folder / "a0", folder / "a1")
    record = json.loads((folder / "a1" / "config.json").read_text())
    record["config"]["seed"] = 1
    (folder / "a1" / "config.json").write_text(json.dumps(record))
    return [folder / name for name in ("a0", "a1", "b0")]


def test_what_makes_no_other_run_makes_no_other_method_and_no_run_counts_twice(workdirs, tmp_path, capsys):
    changes = {}, {"seed": 1, "log.every": "2 steps", "evaluate.ks": (3,)}, {"data.source": "shapes:80"}
    configs = [tiny_shapes() for _ in changes]
    for config, changed in zip(configs, changes, strict=True):
        config.update_from_flattened_dict(changed)
    assert _method_names(configs) == ["HamJEPA", "HamJEPA", "HamJEPA 2"]
    shutil.copytree(workdirs[0], tmp_path / "copy")
    assert main([str(workdirs[0]), str(tmp_path / "copy"), "--factors", f"--out={tmp_path / 'out'}"]) == 2
    assert "a0 are both of seed 0, and one run would count twice" in capsys.readouterr().err


def test_runs_are_put_together_by_method(workdirs, tmp_path, caplog):
    options = ["--factors", f"--out={tmp_path}"]
    with caplog.at_level("INFO"):
        assert main([*map(str, workdirs), *options]) == 0
    content = json.loads((tmp_path / "factors.json").read_text())
    assert set(content["kinds"]) == FACTORS and {"command", "git", "versions", "time"} <= set(content)
    assert [(run["method"], run["seed"]) for run in content["runs"]] == [
        ("HamJEPA", 0), ("HamJEPA", 1), ("LeJEPA/SIGReg", 0),
    ]  # fmt: skip
    results = content["results"]
    assert {m: list(stages) for m, stages in results.items()} == {
        "HamJEPA": ["before", "after"],
        "LeJEPA/SIGReg": ["before"],
    }
    assert list(results["HamJEPA"]["after"]) == ["q", "p", "qp"] and list(results["LeJEPA/SIGReg"]["before"]) == [
        "z"
    ]
    of_q = results["HamJEPA"]["before"]["q"]
    assert set(of_q) == FACTORS and all(len(v) == 2 for probes in of_q.values() for v in probes.values())
    # The order is that of the runs, and each run's own numbers are those put together.
    for i, name in enumerate(("a0", "a1")):
        own = json.loads((tmp_path / name / "metrics.json").read_text())["checkpoints"][-1]["factors"]
        assert own["before"]["q"]["hue"]["mlp"] == of_q["hue"]["mlp"][i]
    # The background's brightness is what even a hardly trained average over the map has.
    assert np.mean(results["HamJEPA"]["before"]["qp"]["bright"]["ridge"]) > 0.6
    assert results["HamJEPA"]["before"]["q"] != results["HamJEPA"]["after"]["q"]
    table = (tmp_path / "factors.txt").read_text()
    assert "(q,p) after the flow" in table and "background hue" in table and table.strip() in caplog.text
    assert np.asarray(Image.open(tmp_path / "factors.png").convert("L")).std() > 10
    rows = factors_table(content).splitlines()
    assert rows[0] == "| factor | HamJEPA q | HamJEPA p | HamJEPA (q,p) | LeJEPA/SIGReg z |" and len(rows) == 12
    assert rows[2].startswith("| class (accuracy) | 0.") and "Through the flow of HamJEPA" in rows[-1]


@pytest.mark.slow
def test_a_run_by_itself_keeps_its_numbers_beside_its_results(workdirs):
    assert main([str(workdirs[2]), "--factors"]) == 0
    content = json.loads((workdirs[2] / "evaluation" / "factors.json").read_text())
    assert len(content["runs"]) == 1 and "one seed" in factors_table(content)


def test_images_whose_factors_are_not_known_are_refused(workdirs, tmp_path, capsys):
    assert main([str(workdirs[0]), "--factors", "--source=digits", f"--out={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--factors: data.source 'digits' does not state the factors" in error
