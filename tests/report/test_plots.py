import json
import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from hamjepa_jax.report import decomposition, learning_curve, plots, summary_panels, training_dynamics


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved, in order."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    return figures


def evaluation(step, epoch, level):
    record = {"step": step, "epoch": epoch}
    for readout in ("q", "p", "qp"):
        for k in (1, 20):
            record[f"eval/{readout}/knn_top1_k{k}_cosine_majority"] = level - 0.001 * k
        record[f"eval/{readout}/probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50"] = level
        record[f"eval/{readout}/effective_rank_top256"] = 10 + level
    return record


def run_history():
    history = []
    for step in range(10, 101, 10):
        record = {"step": step, "epoch": step / 50, "train/total": 1 / step, "train/var": 0.0, "train/lr": 1e-3}
        for half in ("q", "p"):
            for name in ("mean_square", "min_std", "logdet", "pr", "eigmax"):
                record[f"train/{half}_{name}"] = 0.1
        history.append(record)
    return [*history, evaluation(50, 1.0, 0.2), evaluation(100, 2.0, 0.3)]


def is_file_of_kind(path, start):
    return path.read_bytes().startswith(start)


def test_learning_curve_shows_every_kind_of_metric(tmp_path, drawn):
    png = learning_curve([{"step": 0, "perf/start_s": 1.0}, *run_history()], tmp_path / "new" / "curve.png")
    assert is_file_of_kind(png, b"\x89PNG") and is_file_of_kind(png.with_suffix(".pdf"), b"%PDF")
    axes = drawn[0].axes
    assert len(axes) == 6
    assert all(ax.get_title() and ax.get_ylabel() and ax.get_xlabel() == "epoch" for ax in axes)
    assert [len(ax.lines) for ax in axes] == [2, 4, 2, 4, 3, 3]
    knn = axes[4].lines[0]
    np.testing.assert_allclose(knn.get_xdata(), [1.0, 2.0])
    np.testing.assert_allclose(knn.get_ydata(), [18.0, 28.0])


def test_learning_curve_has_knn_at_a_k_that_was_measured(tmp_path, drawn):
    history = [{k: x for k, x in evaluation(s, s, 0.3).items() if "_k20_" not in k} for s in (1, 2)]
    learning_curve(history, tmp_path / "curve.png")
    knn = next(ax for ax in drawn[0].axes if ax.get_title().startswith("kNN, k = 20 or else the largest"))
    np.testing.assert_allclose(knn.lines[0].get_ydata(), [29.9, 29.9])


def test_learning_curve_of_a_young_or_damaged_run(tmp_path, drawn):
    # Integer epochs that do not tell steps apart, a diverged value, no evaluation yet, one panel.
    history = [{"step": s, "epoch": 1, "train/total": math.nan if s == 2 else 1.0} for s in range(4)]
    learning_curve([{"config": "x"}, *history], tmp_path / "curve")
    assert len(drawn[0].axes) == 1 and drawn[0].axes[0].get_xlabel() == "step"
    assert learning_curve([{"step": 1, "epoch": 1, "train/lr": 1e-3}], tmp_path / "none") is None
    assert learning_curve([], tmp_path / "none") is None
    assert not (tmp_path / "none.png").exists()


def test_training_dynamics_relates_probe_and_rank(tmp_path, drawn):
    history = [evaluation(s, s / 10, level) for s, level in ((10, 0.1), (20, 0.3), (30, 0.2))]
    training_dynamics([{"step": 5, "epoch": 0.5, "train/total": 1.0}, *history], tmp_path / "dynamics.png")
    probe, knn, rank, both = drawn[0].axes
    assert [len(ax.lines) for ax in (probe, knn, rank, both)] == [3, 3, 3, 3]
    np.testing.assert_allclose(knn.lines[0].get_ydata(), [9.9, 29.9, 19.9])
    assert both.get_legend().get_texts()[0].get_text() == "q, ρ = 1.00"
    with pytest.raises(ValueError, match="no evaluation"):
        training_dynamics([{"step": 5, "train/total": 1.0}], tmp_path / "dynamics.png")


def test_decomposition_shows_halves_and_their_last_differences(tmp_path, drawn):
    history = [evaluation(s, s / 10, level) for s, level in ((10, 0.1), (20, 0.3))]
    history[1]["eval/p/probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50"] = 0.25
    decomposition(history, tmp_path / "decomposition.png")
    probe, knn, delta = drawn[0].axes
    np.testing.assert_allclose(probe.lines[1].get_ydata(), [10, 25])
    np.testing.assert_allclose(knn.lines[0].get_ydata(), [9.9, 29.9])
    heights = [bar.get_height() for bar in delta.patches]
    np.testing.assert_allclose(heights, [5, 0, 5, 0, 0, 0], atol=1e-9)  # probe: q − p, (q,p) − q, (q,p) − p; kNN
    with pytest.raises(ValueError, match="q and p"):
        decomposition([{"step": 1, "eval/z/knn_top1_k1_cosine_majority": 0.5}], tmp_path / "decomposition.png")


def test_decomposition_shows_what_was_measured_alone(tmp_path, drawn):
    history = [
        {k: x for k, x in evaluation(s, s / 10, 0.1).items() if "/qp/" not in k and "probe" not in k}
        for s in (1, 2)
    ]
    decomposition(history, tmp_path / "decomposition.png")
    knn, delta = drawn[0].axes
    assert knn.get_title() == "kNN, best k" and [label.get_text() for label in delta.get_xticklabels()] == ["q − p"]
    (bar,) = delta.patches
    assert bar.get_x() + bar.get_width() / 2 == pytest.approx(0)
    ranks = [{k: x for k, x in record.items() if "knn" not in k} for record in history]
    assert decomposition(ranks, tmp_path / "none.png") is None and not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("readouts", [("q",), ("q", "p", "qp"), ("z",)])
def test_summary_survives_json_and_shows_four_panels(tmp_path, drawn, readouts):
    histogram = {"edges": [0.0, 0.5, 1.0], "counts": [3, 1]}
    part = {
        "knn_top1": {1: 0.2, 20: 0.3},
        "spectrum": [2.0, 1.0, 0.0],
        "cosine_histogram": histogram,
        "norm_histogram": histogram,
    }
    summary = json.loads(json.dumps({name: part for name in readouts}))
    png = summary_panels(summary, tmp_path / "summary.png")
    assert is_file_of_kind(png, b"\x89PNG") and is_file_of_kind(png.with_suffix(".pdf"), b"%PDF")
    knn, spectrum, cosine, norm = drawn[0].axes
    np.testing.assert_allclose(knn.lines[0].get_ydata(), [20.0, 30.0])
    assert knn.get_title() == "kNN sweep (cosine)"  # The summary does not say how the votes were weighed.
    assert spectrum.get_yscale() == "log" and spectrum.lines[0].get_ydata().tolist() == [2.0, 1.0]
    for ax in (cosine, norm):
        density = ax.patches[0].get_data().values
        np.testing.assert_allclose(density, [1.5, 0.5])  # integrates to 1
    for wrong in ({}, {"x": part}):
        with pytest.raises(ValueError, match="one or more of"):
            summary_panels(wrong, png)


def test_summary_without_knn_says_so(tmp_path, drawn):
    histogram = {"edges": [0.0, 1.0], "counts": [1]}
    part = {"knn_top1": {}, "spectrum": [1.0], "cosine_histogram": histogram, "norm_histogram": histogram}
    summary_panels({"z": part}, tmp_path / "summary.png")
    assert drawn[0].axes[0].texts[0].get_text() == "not measured"


def test_figures_of_the_same_data_are_the_same_bytes(tmp_path):
    paths = [learning_curve(run_history(), tmp_path / name) for name in ("a", "b")]
    for suffix in (".png", ".pdf"):
        first, second = (path.with_suffix(suffix).read_bytes() for path in paths)
        assert first == second


def test_spearman_agrees_with_scipy_with_ties():
    a, b = [3.0, 1.0, 2.0, 2.0, 5.0], [1.0, 1.0, 4.0, 2.0, 9.0]
    assert plots.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert math.isnan(plots.spearman([1, 2], [1, 2])) and math.isnan(plots.spearman([1, 1, 1], [1, 2, 3]))
    with pytest.raises(ValueError, match="got 2 and 3"):
        plots.spearman([1, 2], [1, 2, 3])


def test_a_folder_in_the_place_of_a_figure_is_put_aside(tmp_path):
    (tmp_path / "curve.png").mkdir()
    png = learning_curve(run_history(), tmp_path / "curve")
    assert is_file_of_kind(png, b"\x89PNG") and (tmp_path / "curve.png.damaged1").is_dir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curve.pdf", "curve.png", "curve.png.damaged1"]
