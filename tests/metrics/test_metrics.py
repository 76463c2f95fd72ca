"""A metric is one file: it is measured, has its column and its panel, and needs no other change."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

from hamjepa_jax import evaluation, parts, report
from hamjepa_jax.errors import UserError
from hamjepa_jax.metrics import Column, Panel, Protocol, columns, expected_keys, listed, panels
from hamjepa_jax.parts import field, settings

OWN = """
import numpy as np

from hamjepa_jax.metrics import Column, Panel
from hamjepa_jax.parts import metrics


@metrics.register("spread", columns=[Column("spread", digits=1)], panels=[Panel("Spread of the features")])
def spread(x):
    return np.ptp(x.sample)
"""


@pytest.fixture
def registry(monkeypatch):
    """Registrations of this test are forgotten after it."""
    monkeypatch.setattr(parts.metrics, "_parts", dict(parts.metrics._parts))
    return parts.metrics


@pytest.fixture
def plugin(registry, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    parts.load_plugins([str(tmp_path / "own.py")])
    return str(tmp_path / "own.py")


def features(**asked):
    rng = np.random.default_rng(0)
    z, y = rng.standard_normal((40, 6)).astype(np.float32), np.arange(40, dtype=np.int32) % 2
    return z, evaluation.evaluate_features(
        z, y, z, y, num_classes=2, split=True, **({"ks": (1, 5), "probe": None} | asked)
    )


def test_a_plugins_metric_is_measured_last_and_by_runs_that_name_it(plugin):
    z, found = features()
    assert found["q/spread"] == np.ptp(z[:, :3]) and list(found)[-1] == "qp/spread"
    assert list(found) == expected_keys(Protocol(ks=(1, 5), probe=None), ("q", "p", "qp"), plugins=[plugin])
    assert "q/spread" in features(plugins=[plugin])[1]
    assert "q/spread" not in features(plugins=[])[1] and "q/uniformity" in features(plugins=[])[1]


def test_a_plugins_metric_has_a_column_in_tables_and_a_panel_in_plots(plugin, tmp_path, monkeypatch):
    _, found = features()
    lines = report.comparison_table(report.rows_of({"trained": found})).splitlines()
    assert lines[0].split()[-1] == "spread" and lines[2].split()[-1] == f"{found['q/spread']:.1f}"
    assert "| spread |" in report.markdown_table({"q": {"spread": 1.0}})
    # A run from before the metric has no empty column.
    assert "spread" not in report.comparison_table({"q": {"uniformity": 1.0}})
    shown = report.metric_columns("methods", ["spread", "mean_norm"])
    assert [column.title for column in shown][-2:] == ["mean norm", "spread"]
    assert report.cell(shown[-1], [{"spread": 1.0}, {"spread": 3.0}]) == "2.0 ± 1.4"

    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    history = [{"step": s, "epoch": s, **{f"eval/{k}": v for k, v in found.items()}} for s in (1, 2)]
    report.training_dynamics(history, tmp_path / "dynamics.png")
    report.learning_curve(history, tmp_path / "curve.png")
    dynamics, curve = figures[0].axes, figures[-1].axes
    assert [ax.get_title() for ax in dynamics][3:] == ["Spread of the features", "Probe against effective rank"]
    assert curve[-1].get_title() == "Spread of the features" and len(curve[-1].lines) == 3
    np.testing.assert_allclose(curve[-1].lines[0].get_ydata(), [found["q/spread"]] * 2)
    assert curve[-1].get_xlabel() == "epoch"


def test_a_metric_may_have_settings_of_its_own(registry):
    @registry.register("quantile", settings(at=field(0.5, "The quantile.", least=0, most=1)), keys=["a_x", "b"])
    def quantile(x, s):
        return {"b": 0.0, "a_x": np.quantile(x.sample, s.at)}

    z, found = features()
    assert found["q/a_x"] == np.quantile(z[:, :3], 0.5) and list(found)[-2:] == ["qp/a_x", "qp/b"]
    _, found = features(settings={"quantile": registry["quantile"].settings(at=0.9)})
    assert found["q/a_x"] == np.quantile(z[:, :3], 0.9)


def test_mistakes_of_a_metric_are_told_in_one_sentence(registry):
    registry.register("mine", keys=["uniformity"])(lambda x: 1.0)
    with pytest.raises(UserError, match=r"'uniformity' and 'mine': both have the key uniformity"):
        features()
    registry.register("mine", keys=["one", "two"])(lambda x: {"one": 1.0, "three": 3.0})
    with pytest.raises(UserError, match=r"metric 'mine': .* differ in three, two"):
        features()
    for given in (None, "x", np.zeros(3), 1j):
        registry.register("mine")(lambda x, given=given: given)
        with pytest.raises(UserError, match="metric 'mine': gives something else than numbers"):
            features()
    registry.register("mine", colums=[Column("mine")])(lambda x: 1.0)
    with pytest.raises(UserError, match=r"metric 'mine': 'colums' is no fact"):
        features()


def test_a_metric_of_the_flow_is_measured_with_it(registry):
    registry.register("worst_reversal", of="flow")(lambda x: x.measured["reversal_error"].max())
    measured = {name: np.array([0.5, 2.0]) for name in ("log_abs_det", "symplectic_defect", "reversal_error")}
    measured["energy_drift"] = np.array([[0.0, 0.0], [1.0, -3.0]])
    found = evaluation.flow_metrics(measured, has_energy=True)
    assert found == {
        "flow/mean_abs_log_abs_det": 1.25,
        "flow/max_symplectic_defect": 2.0,
        "flow/median_reversal_error": 1.25,
        "flow/median_energy_drift_x1": 2.0,
        "flow/worst_reversal": 2.0,
    }
    assert "flow/median_energy_drift_x1" not in evaluation.flow_metrics(measured, has_energy=False)
    others = {"q/uniformity": 0.0, "q/uniformity_views": 1.0, "q/alignment_views": 2.0}
    assert listed(others | found) == [*found, "q/uniformity_views", "q/alignment_views"]


def test_panels_and_columns_take_the_metrics_name_for_their_quantity(registry):
    shown = dict(columns=[Column("Mine", factor=100)], panels=[Panel("Mine", factor=100)])
    registry.register("mine", **shown)(lambda x: 1.0)
    (panel,) = [panel for panel in panels("learning_curve") if panel.title == "Mine"]
    (column,) = [column for column in columns("run") if column.title == "Mine"]
    assert column.quantity == "mine" and column.shown(["uniformity"], 20) is None
    assert panel.value({"mine": 0.5}) == 50 and panel.value({}) is None and panel.lower({"mine": 0.5}) is None


def test_metrics_and_reports_load_without_jax():
    code = (
        "import sys, hamjepa_jax.metrics as m, hamjepa_jax.report; "
        "assert m.columns('run') and m.panels('learning_curve'); sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_keeps_its_metrics_when_a_plugin_is_loaded_first(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    code = (
        f"from hamjepa_jax import parts; parts.load_plugins([{str(tmp_path / 'own.py')!r}])\n"
        "found = {p.name: p.plugin for p in parts.metrics.parts()}\n"
        "assert found.pop('spread') and len(found) > 5 and not any(found.values()), found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_randomised_effective_rank_leaves_the_tail_too_small():
    """It lies some per cent below the exact rank of a slowly decaying spectrum, and is that of a few directions."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((600, 400)) * (np.arange(400) + 10.0) ** -0.4, np.arange(600) % 2
    arguments = dict(num_classes=2, split=False, ks=(), probe=None, top=100)

    def ranks(x):
        found = evaluation.evaluate_features(x, y, x, y, **arguments)
        return found["z/effective_rank_top100"], found["z/effective_rank_randomised_top100"]

    exact, randomised = ranks(x.astype(np.float32))
    assert 0.9 * exact < randomised < 0.99 * exact
    assert ranks(x.astype(np.float32)) == (exact, randomised)
    few = x[:, :3] @ rng.standard_normal((3, 400))
    np.testing.assert_allclose(*ranks(few.astype(np.float32)), rtol=1e-5)
    assert ranks(np.zeros((600, 4), np.float32)) == (0.0, 0.0)


def test_the_table_says_how_its_effective_rank_compares_with_the_papers():
    _, found = features()
    table = report.comparison_table(report.rows_of({"trained": found}))
    assert "which are exact; the paper's ranks are 4 to 5 % lower" in table
