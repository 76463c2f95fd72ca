"""Sweeps: grid files, cells, the table of what is done, and its resumption."""

import json

import jax
import numpy as np
import pytest
import tiny

from hamjepa_jax import report, sweep
from hamjepa_jax.errors import UserError
from hamjepa_jax.experiments import cells, many
from hamjepa_jax.experiments import grid as grid_lib

AXES = {"predictor.step_size": [0.05, 0.2], "predictor.num_steps": [1, 2]}


def write_grid(path, **changes):
    content = {"config": "tests/tiny.py", "override": {"train.epochs": 1, "evaluate.every": ""}, "axes": AXES}
    path.write_text(json.dumps(content | changes))
    return path


def test_cells_are_numbered_and_named_as_listed(tmp_path, capsys):
    grid = write_grid(tmp_path / "grid.json", seeds=[3, 4])
    assert sweep.main([str(grid), f"--out={tmp_path}", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert lines[0].split() == ["0", "step_size=0.05,num_steps=1,seed=3"]
    assert lines[5].split() == ["5", "step_size=0.2,num_steps=1,seed=4"]


def test_a_python_grid_with_fields_set_together(tmp_path):
    file = tmp_path / "grid.py"
    file.write_text(
        "def get_grid():\n"
        "    floors = 'objective.hamjepa.pr_floor_q+objective.hamjepa.pr_floor_p'\n"
        "    return dict(config='tests/tiny.py', axes={floors: [0.1, None], 'views.global_scale': [(0.5, 1.0)]})\n"
    )
    grid = grid_lib.read_grid(file)
    points = [point for point, _ in grid.cells()]
    configs = [grid_lib.make_config(grid, point, seed=5) for point in points]
    assert [c.objective.hamjepa.pr_floor_q for c in configs] == [0.1, None]
    assert [c.objective.hamjepa.pr_floor_p for c in configs] == [0.1, None]
    assert configs[0].views.global_scale == (0.5, 1.0) and configs[0].seed == 5
    assert grid_lib.cell_name(grid, points[0], 5).startswith("pr_floor_q+pr_floor_p=0.1,global_scale=")


@pytest.mark.parametrize(
    "changes, options, message",
    [
        (
            {"axes": {"predictor.stepsize": [1]}},
            [],
            "predictor.stepsize: .*did you mean predictor.step_size",
        ),
        ({"axes": {"predictor.num_steps": ["two"]}}, [], "predictor.num_steps 'two'"),
        ({"axes": {"predictor.num_steps": [1, 1]}}, [], "different values"),
        ({"axes": {"predictor.num_steps": [0]}}, [], "predictor.num_steps 0"),
        ({"axes": {}}, [], '"config" and "axes"'),
        ({"seed": 1}, [], "it has seed"),
        ({"override": {"seed": 1}}, [], 'seed is no field of a grid; give "seeds"'),
        ({"axes": {"train.epochs+seed": [1]}}, [], 'seed is no field of a grid; give "seeds"'),
        ({"axes": {"predictor.step_size": ["abc"]}}, ["--list"], "predictor.step_size 'abc'"),
        ({"override": {"train.nothing": 1}}, ["--list"], "train.nothing: .*no such field"),
        ({"seeds": 3}, [], "seeds 3: give a list"),
        ({"seeds": ["0"]}, [], r"seeds \['0'\]: .*whole numbers"),
        ({"seeds": [0.5]}, [], r"seeds \[0\.5\]"),
        ({"axes": ["predictor.num_steps"]}, [], '"axes" must be an object'),
        ({"override": ["train.epochs=1"]}, [], '"override" must be an object'),
        ({"config": "configs/none.py"}, [], "configs/none.py"),
        ({}, ["--cell=4"], "--cell 4.*0 to 3"),
        ({}, ["--cell=first"], "--cell first"),
    ],
)
def test_mistakes_get_one_sentence_before_any_training(changes, options, message, tmp_path, capsys):
    import re

    grid = write_grid(tmp_path / "grid.json", **changes)
    assert sweep.main([str(grid), f"--out={tmp_path / 'out'}", *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(f"^error: .*{message}", lines[0]), lines
    assert not (tmp_path / "out").exists()


def test_the_data_are_opened_by_the_config_s_loader(tmp_path, monkeypatch, capsys):
    def refuse(spec, *, loader):
        raise UserError(f"{spec} by {loader}")

    monkeypatch.setattr(cells, "open_source", refuse)
    override = {"data.loader": "tfdata", "data.source": "tfds:some", "data.store": "stream"}
    grid = write_grid(tmp_path / "grid.json", override=override)
    assert sweep.main([str(grid), f"--out={tmp_path / 'out'}"]) == 2
    assert "tfds:some by tfdata" in capsys.readouterr().err


def test_a_run_evaluated_half_way_is_not_in_the_table(tmp_path, caplog):
    grid = grid_lib.read_grid(write_grid(tmp_path / "grid.json"))
    point, seed = grid.cells()[0]
    workdir = tmp_path / "cells" / grid_lib.cell_name(grid, point, seed)
    config = grid_lib.make_config(grid, point, seed)
    tiny.write_evaluated(workdir, config, step=3, logged={"step": 3, "epoch": 0.5})
    with caplog.at_level("INFO", logger="hamjepa_jax"):
        cells.write_report(grid, tmp_path, "")
    assert "evaluated at step 3 of 6; left out" in caplog.text and "no cell is done yet" in caplog.text
    assert not (tmp_path / "report.md").exists()


def write_cell(tmp_path, grid, point, *, flow, trained=None):
    """A cell as if it had been trained and evaluated; `flow` are the numbers of its flow, beside those of kNN."""
    workdir = tmp_path / "cells" / grid_lib.cell_name(grid, point, 0)
    config = grid_lib.make_config(grid, point, 0)
    tiny.write_evaluated(workdir, config, step=6, logged={"step": 6, "epoch": 1.0})
    trained = trained or {"q/knn_top1_k5_cosine_majority": 0.5}
    trained |= {f"flow/{name}": value for name, value in flow.items()}
    (workdir / "metrics.json").write_text(json.dumps({"step": 6, "trained": trained}))
    about = {"versions": {"jax": "0"}, "git": None, "time": "2026-01-01", "devices": ["CPU"], "backend": "cpu"}
    (workdir / "run.json").write_text(json.dumps(about))


def test_cells_without_labels_have_a_report_without_accuracies(tmp_path, monkeypatch):
    grid = grid_lib.read_grid(write_grid(tmp_path / "grid.json"))
    for point, _ in grid.cells():
        write_cell(tmp_path, grid, point, flow={}, trained={"q/rankme": 3.0})
    monkeypatch.setattr(many, "picture_blocks", lambda run, name, source: [report.Text(f"pictures of {name}")])
    cells.write_report(grid, tmp_path, "", lambda *_, **__: None)
    text = (tmp_path / "report.md").read_text()
    assert "pictures of step_size=0.05, num_steps=1" in text
    assert "No accuracy was measured" in text and "over the grid" not in text and "Seed 0. " in text


def test_an_accuracy_that_the_first_cell_lacks_has_its_column(tmp_path):
    grid = grid_lib.read_grid(write_grid(tmp_path / "grid.json"))
    probe = "q/probe_top1_adamw_lr0.001_wd1e-06_bs256_ep1"
    for i, (point, _) in enumerate(grid.cells()):
        write_cell(tmp_path, grid, point, flow={}, trained={"q/rankme": 3.0} | ({probe: 0.75} if i else {}))
    cells.write_report(grid, tmp_path, "")
    assert json.loads((tmp_path / "results.json").read_text())["protocol"] == {"probe": probe.removeprefix("q/")}
    rows = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| 0.05 | ")]
    assert rows[0].startswith("| 0.05 | 1 | q | – |") and rows[1].startswith("| 0.05 | 2 | q | 75.00 |")


def test_the_flow_s_structure_is_in_the_report_where_it_was_measured(tmp_path, monkeypatch):
    drawn, draw = [], report.grid_figure
    monkeypatch.setattr(report, "grid_figure", lambda panels, path: (drawn.extend(panels), draw(panels, path))[1])
    grid = grid_lib.read_grid(write_grid(tmp_path / "grid.json"))
    points = [point for point, _ in grid.cells()]
    for i, point in enumerate(points[:3]):  # The fourth cell is not done.
        write_cell(tmp_path, grid, point, flow={"mean_abs_log_abs_det": 2e-7 * i, "median_energy_drift_x50": 0.25})
    cells.write_report(grid, tmp_path, "")
    found = [
        cell for cell in json.loads((tmp_path / "results.json").read_text())["cells"] if cell["readout"] == "flow"
    ]
    assert [cell["cell"] for cell in found] == points[:3]
    assert [cell["metrics"]["mean_abs_log_abs_det"] for cell in found] == [[0.0], [2e-7], [4e-7]]
    text = (tmp_path / "report.md").read_text()
    assert "## The learned flow" in text and "| 0.2 | 1 | 4.0e-07 | 2.5e-01 |" in text
    accuracy, volume, drift = drawn
    assert accuracy["title"] == "kNN@5, q" and "form" not in accuracy
    assert volume["title"] == "mean |log|det J||" and drift["title"] == "median energy drift"
    np.testing.assert_array_equal(volume["mean"], [[0.0, 2e-7], [4e-7, np.nan]])
    assert volume["x"] == ("num_steps", [1, 2]) and volume["y"] == ("step_size", [0.05, 0.2])


def test_without_the_flow_the_report_has_none(tmp_path):
    grid = grid_lib.read_grid(write_grid(tmp_path / "grid.json"))
    write_cell(tmp_path, grid, grid.cells()[0][0], flow={})
    cells.write_report(grid, tmp_path, "")
    assert "learned flow" not in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_a_two_by_two_sweep_cell_by_cell_and_at_once(tmp_path, capsys):
    grid, out = write_grid(tmp_path / "grid.json"), tmp_path / "out"
    assert sweep.main([str(grid), f"--out={out}", "--cell=3"]) == 0  # as a task of a SLURM array
    assert "num_steps=2" in (out / "report.md").read_text()
    assert len(json.loads((out / "results.json").read_text())["cells"]) == 3  # q, p, (q,p)
    before = (out / "cells" / "step_size=0.2,num_steps=2,seed=0" / "metrics.json").stat().st_mtime_ns
    assert sweep.main([str(grid), f"--out={out}"]) == 0
    assert (out / "cells" / "step_size=0.2,num_steps=2,seed=0" / "metrics.json").stat().st_mtime_ns == before
    found = json.loads((out / "results.json").read_text())
    assert len(found["cells"]) == 4 * 3
    assert found["command"] == f"python -m hamjepa_jax.sweep {grid} --out={out}" and len(found["runs"]) == 4
    assert found["runs"][0]["environment"]["versions"]["jax"] == jax.__version__
    cell = next(c for c in found["cells"] if c["cell"] == {"predictor.step_size": 0.2, "predictor.num_steps": 1})
    metrics = json.loads((out / "cells" / "step_size=0.2,num_steps=1,seed=0" / "metrics.json").read_text())
    key = found["protocol"]["knn"]
    assert cell["metrics"][key] == [metrics["trained"][f"{cell['readout']}/{key}"]]
    html = (out / "report.html").read_text()
    assert html.count("data:image/png") == 3 and "4 of 4 cells are done" in html
    pictured = [str(grid), f"--out={out}", "--cell=none", "--pictures"]
    assert sweep.main(pictured) == 0
    html, (drawn,) = (out / "report.html").read_text(), out.glob("cells/*/pictures/captions.json")
    assert html.count("data:image/png") == 3 + 5 and "<h2>Pictures of step_size=" in html
    before = drawn.stat().st_mtime_ns
    assert sweep.main(pictured) == 0 and drawn.stat().st_mtime_ns == before  # They are drawn once.
    # The flow, asked for later: the cell is evaluated again and not trained.
    asked = write_grid(
        tmp_path / "flow.json", override={"train.epochs": 1, "evaluate.every": "", "evaluate.flow": 2}
    )
    log = (out / "cells" / "step_size=0.2,num_steps=2,seed=0" / "metrics.jsonl").read_bytes()
    assert sweep.main([str(asked), f"--out={out}", "--cell=3"]) == 0
    assert (out / "cells" / "step_size=0.2,num_steps=2,seed=0" / "metrics.jsonl").read_bytes() == log
    found = json.loads((out / "results.json").read_text())["cells"]
    (flow,) = [cell for cell in found if cell["readout"] == "flow"]
    assert flow["cell"] == {"predictor.step_size": 0.2, "predictor.num_steps": 2}
    assert 0 < flow["metrics"]["mean_abs_log_abs_det"][0] < 1e-5
    assert flow["metrics"]["median_reversal_error"][0] < 1e-6
    # The same folder with another base config: refused, naming the field.
    other = write_grid(tmp_path / "other.json", override={"train.epochs": 1, "optimizer.learning_rate": 0.1})
    with pytest.raises(UserError, match=r"optimizer\.learning_rate"):
        cells.write_report(grid_lib.read_grid(other), out, "")
    assert sweep.main([str(other), f"--out={out}"]) == 2
    assert "optimizer.learning_rate" in capsys.readouterr().err
