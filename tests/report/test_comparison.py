"""Runs read from their workdirs, the refusal to average what differs, and the report on methods."""

import json
import re
import warnings

import numpy as np
import pytest

from hamjepa_jax import config, report
from hamjepa_jax.errors import UserError
from hamjepa_jax.report import differences, finished, page
from hamjepa_jax.report.methods import matched_table, methods_table
from hamjepa_jax.report.published import KNN_KEY, PROBE_KEY

NAMES = {"hamjepa": "HamJEPA", "sigreg": "SIGReg"}


def write_run(workdir, *, seed, readouts, level, rate=5e-4, fingerprint="aa", step=10, probe=PROBE_KEY):
    """A finished run's files, with accuracies `level` and 0.01 more for each further readout."""
    workdir.mkdir(parents=True)
    config = {
        "seed": seed,
        "data": {"source": "digits"},
        "optimizer": {"learning_rate": rate},
        "log": {"every": f"{seed + 1} epochs"},
    }
    metrics, summary = {}, {}
    for i, readout in enumerate(readouts):
        accuracy = level + 0.01 * i
        found = {KNN_KEY: accuracy, KNN_KEY.replace("20", "1"): accuracy / 2, probe: accuracy + 0.1}
        found |= {"effective_rank_top256": 10.0, "mean_cosine": 0.5, "mean_norm": 3.0}
        metrics |= {f"{readout}/{key}": value for key, value in found.items()}
        histogram = {"edges": [0.0, 1.0], "counts": [1]}
        summary[readout] = {
            "knn_top1": {1: accuracy / 2, 20: accuracy},
            "spectrum": [2.0, 1.0],
            "cosine_histogram": histogram,
            "norm_histogram": histogram,
        }
    history = [{"step": 10, "epoch": 2.0, "perf/images_per_s": 100.0}]
    history.append(
        {"step": 10, "epoch": 2.0, "perf/evaluation_s": 6.0} | {f"eval/{k}": v for k, v in metrics.items()}
    )
    environment = {
        "time": "2026-01-01",
        "versions": {"jax": "0.10"},
        "devices": ["TPU v5", "TPU v5"],
        "git": {"commit": "0123456789abcdef", "modified": False},
    }
    sessions = [{"begun": "2026-01-01", "seconds": 50.0}, {"begun": "2026-01-02", "seconds": 10.0}]
    files = {
        "config.json": {"config": config, "data_fingerprint": fingerprint},
        "metrics.json": {"step": step, "trained": metrics},
        "summary.json": summary,
        "run.json": environment,
        "sessions.json": sessions,
    }
    for name, content in files.items():
        (workdir / name).write_text(json.dumps(content))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in history))
    return report.read_run(workdir)


@pytest.fixture
def runs(tmp_path):
    levels = {"hamjepa": (0.31, 0.33, 0.32), "sigreg": (0.26, 0.27, 0.25)}
    readouts = {"hamjepa": ("q", "p", "qp"), "sigreg": ("z",)}
    return {
        method: [
            write_run(tmp_path / f"{method}{seed}", seed=seed, readouts=readouts[method], level=level)
            for seed, level in enumerate(of_method)
        ]
        for method, of_method in levels.items()
    }


def test_a_report_has_means_deviations_tests_and_published_numbers(runs, tmp_path):
    published = report.PUBLISHED["cifar100_30"]
    blocks, numbers = report.compare_methods(runs, tmp_path, names=NAMES, published=published)
    results, differences, _, seeds, machines = (b for b in blocks if isinstance(b, page.Table) and len(b.rows) > 1)
    row = dict(zip(results.header, results.rows[0], strict=True))
    assert row["method"] == "HamJEPA" and row["readout"] == "q" and row["kNN@20 %"] == "32.00 ± 1.00"
    assert row["published kNN@20 %"] == "31.45 ± 0.27" and row["ours − published, kNN@20"] == "+0.55"
    assert row["Linear probe %"] == "42.00 ± 1.00" and row["best kNN % (k)"] == "32.00 ± 1.00 (20)"
    test = report.paired_t_test([31, 33, 32], [26, 27, 25])
    found = numbers["differences"][0]
    assert (found["method"], found["readout"], found["against"], found["its_readout"]) == (
        "hamjepa",
        "q",
        "sigreg",
        "z",
    )
    assert all(found[key] == pytest.approx(test[key]) for key in ("difference", "low", "high", "t", "p"))
    assert "+6.00" in differences.rows[0] and len(differences.rows) == 6
    assert len(seeds.rows) == 3 * 3 + 3 and seeds.rows[0][:5] == ["HamJEPA", "q", "0", "10", "2"]
    machine = dict(zip(machines.header, machines.rows[0], strict=True))
    assert machine["wall time"] == "0:01:00 (2 sessions)" and machine["devices"] == "2× TPU v5"
    assert machine["evaluation"] == "10.0%" and machine["commit"] == "0123456789"
    assert numbers["results"]["sigreg"]["z"][PROBE_KEY]["mean"] == pytest.approx(0.36)
    json.dumps(numbers)


def test_the_columns_say_what_they_show(runs, tmp_path):
    blocks, _ = report.compare_methods(runs, tmp_path, names=NAMES, published={})
    texts = [block.text for block in blocks if isinstance(block, page.Text)]
    assert any("top 256 eigenvalues of the covariance of the test features (at most 5,000)" in t for t in texts)


@pytest.mark.parametrize(
    ("left_out", "title", "value"),
    [("probe_", "published kNN@20 %", "31.45 ± 0.27"), ("knn_", "published Linear probe %", "33.95 ± 0.24")],
)
def test_published_numbers_stand_beside_what_was_measured_alone(runs, tmp_path, left_out, title, value):
    def without(run):
        kept = {key: x for key, x in run.metrics["trained"].items() if left_out not in key}
        return run._replace(metrics=run.metrics | {"trained": kept})

    measured = {method: [without(run) for run in of_method] for method, of_method in runs.items()}
    published = report.PUBLISHED["cifar100_30"]
    blocks, numbers = report.compare_methods(measured, tmp_path, names=NAMES, published=published)
    results = next(block for block in blocks if isinstance(block, page.Table))
    assert [name for name in results.header if name.startswith("published")] == [title]
    assert results.rows[0][results.header.index(title)] == value
    assert all(len(kinds) == 3 for kinds in numbers["published"])  # Method, readout, one accuracy.


def test_without_published_numbers_and_with_one_seed_nothing_is_made_up(runs, tmp_path):
    single = {method: of_method[:1] for method, of_method in runs.items()}
    blocks, numbers = report.compare_methods(single, tmp_path, names=NAMES, published={})
    results = next(b for b in blocks if isinstance(b, page.Table))
    assert not any("published" in name for name in results.header)
    assert results.rows[0][2] == "31.00"
    assert "p" not in numbers["differences"][0]
    assert "no test" in next(b.text for b in blocks if isinstance(b, page.Text) and "paired" in b.text)


def lacking(run, *left_out, history=True):
    """The run as if metrics with these beginnings, or all in the course of training, had not been measured."""
    kept = {
        k: x for k, x in run.metrics["trained"].items() if not k.partition("/")[2].startswith(left_out or ("-",))
    }
    logged = [r for r in run.history if history or "perf/evaluation_s" not in r]
    return run._replace(metrics=run.metrics | {"trained": kept}, history=logged)


def texts_of(blocks):
    return " ".join(block.text for block in blocks if isinstance(block, page.Text))


def test_without_accuracies_the_report_says_so_and_its_tables_can_be_made(runs, tmp_path):
    bare = {method: [lacking(run, "knn_", "probe_") for run in of_method] for method, of_method in runs.items()}
    blocks, numbers = report.compare_methods(bare, tmp_path, names=NAMES, published={})
    results = next(block for block in blocks if isinstance(block, page.Table))
    assert results.header[:3] == ["method", "readout", "effective rank"]
    text = texts_of(blocks)
    assert "No accuracy was measured: the images have no labels" in text and "Top-1" not in text
    assert "No accuracy was measured: there is nothing to compare." in text
    content = {"title": "x", "command": "c", **numbers, "runs": []}
    assert methods_table(content).splitlines()[2] == "| HamJEPA q | 3 |"
    assert matched_table(content).splitlines()[2] == "| HamJEPA q | – | 3 |"


def test_methods_without_a_seed_in_common_are_not_said_to_be_one(runs, tmp_path):
    apart = {"hamjepa": runs["hamjepa"][:1], "sigreg": runs["sigreg"][1:]}
    blocks, _ = report.compare_methods(apart, tmp_path, names=NAMES, published={})
    assert "No two methods have a seed in common: there is nothing to compare." in texts_of(blocks)


@pytest.mark.parametrize(
    ("left_out", "use"),
    [((), "as bank and for the probe."), (("probe_",), "as bank."), (("knn_",), "for the probe.")],
)
def test_the_protocol_is_that_of_what_was_measured_and_one_seed_has_no_deviation(runs, left_out, use, tmp_path):
    one = {"hamjepa": [lacking(runs["hamjepa"][2], *left_out)]}
    text = texts_of(report.compare_methods(one, tmp_path, names=NAMES, published={})[0])
    assert f"the training images {use}" in text
    assert "Seed 2. " in text and "deviation over them" not in text


def test_runs_that_were_evaluated_at_their_end_alone_have_no_curve(runs, tmp_path):
    late = {method: [lacking(run, history=False) for run in of_method] for method, of_method in runs.items()}
    for of_all, drawn in ((late, False), (runs, True)):
        blocks, _ = report.compare_methods(of_all, tmp_path, names=NAMES, published={})
        assert drawn == ("progress.png" in [b.path.name for b in blocks if isinstance(b, page.Figure)])


def test_differences_are_drawn_from_the_first_method_with_intervals_and_seeds(runs, tmp_path, monkeypatch):
    drawn = {}

    def draw(panels, reference, path):
        drawn.update(panels=panels, reference=reference)

    monkeypatch.setattr(differences.method_plots, "differences_figure", draw)
    report.compare_methods(runs, tmp_path, names=NAMES, published={})
    (found,), test = drawn["panels"]["kNN@20"].items(), report.paired_t_test([26, 27, 25], [31, 33, 32])
    assert drawn["reference"] == "HamJEPA q" and list(drawn["panels"]) == ["kNN@20", "Linear probe"]
    name, d = found
    assert name == "SIGReg z" and d["by_seed"] == pytest.approx([-5, -6, -7])  # below HamJEPA's q, not its (q,p)
    assert [d[key] for key in ("difference", "low", "high")] == pytest.approx(
        [test[key] for key in ("difference", "low", "high")]
    )
    report.compare_methods({m: r[:1] for m, r in runs.items()}, tmp_path, names=NAMES, published={})
    assert drawn["panels"]["kNN@20"]["SIGReg z"] == {
        "difference": pytest.approx(-5),
        "by_seed": [pytest.approx(-5)],
    }


def test_many_methods_are_drawn_and_tabled_against_the_first(runs, tmp_path):
    names = {f"m{i}": f"a method with a long name {i}" for i in range(12)}
    many = runs | {
        m: [write_run(tmp_path / f"{m}_{s}", seed=s, readouts=("z",), level=0.2 + 0.01 * i * s) for s in (0, 1)]
        for i, m in enumerate(names)
    }
    blocks, numbers = report.compare_methods(many, tmp_path, names=NAMES | names, published={})
    table = next(b for b in blocks if isinstance(b, page.Table) and b.header[0] == "difference")
    assert len(table.rows) == 13 * 3 * 2 and all(row[0].startswith("HamJEPA ") for row in table.rows)
    pairs = {(d["method"], d["against"]) for d in numbers["differences"]}
    assert len(pairs) == 14 * 13 // 2
    assert all((tmp_path / "plots" / f"{name}.png").is_file() for name in ("accuracy", "differences", "progress"))


def test_features_to_compare_with_have_rows_and_numbers_where_all_seeds_have_them(runs, tmp_path):
    def with_references(run, level, **more):
        untrained = {f"q/{KNN_KEY}": level, f"q/{PROBE_KEY}": level}
        pixels = {f"z/{KNN_KEY}": level / 2, f"z/{PROBE_KEY}": level / 2}
        return run._replace(metrics=run.metrics | {"untrained": untrained, "pixels": pixels} | more)

    mine = [with_references(run, 0.1 * (i + 1)) for i, run in enumerate(runs["hamjepa"])]
    blocks, numbers = report.compare_methods({"hamjepa": mine}, tmp_path, names=NAMES, published={})
    results = next(b for b in blocks if isinstance(b, page.Table))
    assert [row[1] for row in results.rows] == ["q", "p", "(q,p)", "untrained q", "raw pixels"]
    assert results.rows[3][2:4] == ["20.00 ± 10.00"] * 2 and all(
        len(r) == len(results.header) for r in results.rows
    )
    found = numbers["references"]["hamjepa"]["raw pixels"][KNN_KEY]
    assert found["mean"] == pytest.approx(0.1) and found["values"] == pytest.approx([0.05, 0.1, 0.15])
    some = [runs["hamjepa"][0], *mine[1:]]
    _, numbers = report.compare_methods({"hamjepa": some}, tmp_path, names=NAMES, published={})
    assert numbers["references"] == {"hamjepa": {}}


def test_the_page_holds_its_figures_and_the_markdown_links_them(runs, tmp_path):
    blocks, _ = report.compare_methods(runs, tmp_path, names=NAMES, published={})
    files = report.write_page("A <title>", blocks, tmp_path)
    html, markdown = files["html"].read_text(), files["markdown"].read_text()
    assert "A &lt;title&gt;" in html and "http" not in html.replace("http-equiv", "")
    images = re.findall(r'<img alt="[^"]+" src="data:image/png;base64,', html)
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", markdown)
    assert len(images) == len(links) == sum(isinstance(b, page.Figure) for b in blocks) == 6
    assert all((tmp_path / link).is_file() for link in links)


def test_runs_with_differing_configs_data_or_protocols_are_never_averaged(runs, tmp_path):
    mine = runs["hamjepa"]
    report.alike(mine)
    settings = dict(readouts=("q", "p", "qp"), level=0.3)
    other_rate = write_run(tmp_path / "rate", seed=7, rate=1e-3, **settings)
    with pytest.raises(UserError, match=r"optimizer\.learning_rate: 0\.0005 → 0\.001.*never averaged"):
        report.alike([*mine, other_rate])
    other_data = write_run(tmp_path / "data", seed=7, fingerprint="bb", **settings)
    with pytest.raises(UserError, match=r"images of data\.source"):
        report.alike([*mine, other_data])
    with pytest.raises(UserError, match="different images"):
        report.refuse_other_data([*mine, other_data])
    less = write_run(tmp_path / "less", seed=7, readouts=("q", "p"), level=0.3)
    with pytest.raises(UserError, match="what was measured"):
        report.alike([*mine, less])
    half_trained = write_run(tmp_path / "half", seed=7, step=5, **settings)
    with pytest.raises(UserError, match=r"half and .*hamjepa0 differ in the step that was evaluated: 10 → 5"):
        report.alike([*mine, half_trained])
    twice = write_run(tmp_path / "twice", seed=0, **settings)
    with pytest.raises(UserError, match="both of seed 0"):
        report.alike([*mine, twice])
    with pytest.raises(UserError, match=r"learning_rate"):
        report.compare_methods({"hamjepa": [*mine, other_rate]}, tmp_path, names=NAMES, published={})


def test_runs_evaluated_on_other_images_say_so_and_are_not_averaged(runs, tmp_path):
    of_method = [run._replace(config=run.config | {"evaluate.source": "digits"}) for run in runs["hamjepa"]]
    blocks, _ = report.compare_methods({"hamjepa": of_method}, tmp_path, names=NAMES, published={})
    assert "Evaluated on the training and test images of digits." in texts_of(blocks)
    with pytest.raises(UserError, match=r"evaluate\.source: 'digits' → None"):
        report.alike([of_method[0], runs["hamjepa"][1]])


def test_a_measure_that_only_later_runs_have_is_left_out_with_a_word(runs, tmp_path, caplog):
    mine = list(runs["hamjepa"])
    later = mine[-1].metrics | {"trained": mine[-1].metrics["trained"] | {"q/stable_rank": 3.0}}
    mixed = [*mine[:-1], mine[-1]._replace(metrics=later)]
    assert [run.metrics for run in report.alike(mixed)] == [run.metrics for run in mine]
    assert "q/stable_rank left out" in caplog.text
    _, numbers = report.compare_methods({"hamjepa": mixed}, tmp_path, names=NAMES, published={})
    assert "stable_rank" not in numbers["results"]["hamjepa"]["q"]


def test_methods_measured_by_other_protocols_are_not_compared(runs, tmp_path):
    probe = PROBE_KEY.replace("ep50", "ep2")
    other = write_run(tmp_path / "other", seed=0, readouts=("z",), level=0.2, probe=probe)
    with pytest.raises(UserError, match=f"other and .*hamjepa0 were measured by different protocols .*{probe}"):
        report.compare_methods(runs | {"sigreg": [other]}, tmp_path, names=NAMES, published={})


def test_settings_that_make_no_other_run_make_no_other_row():
    assert set(report.FREE_FIELDS) == {*config.FREE_FIELDS, "seed", "data.store"}
    assert len(report.FREE_FIELDS) == len(set(report.FREE_FIELDS))


def test_a_grid_is_drawn_with_gaps_and_with_one_axis(tmp_path):
    cells = [[30.0, np.nan], [20.0, 25.0]]
    panel = {"title": "kNN", "x": ("steps", [1, 2]), "y": ("size", [0.1, 0.2]), "mean": cells, "std": cells}
    line = panel | {"y": None, "mean": cells[:1], "std": [[np.nan, np.nan]]}
    flow = {"label": "", "form": ".1e", "log": True}
    zero, none = flow | {"mean": [[0.0, 1e-7]] * 2}, flow | {"mean": np.full((2, 2), np.nan)}
    panels = [panel, line, panel | flow, line | flow, panel | zero, panel | none]
    assert report.grid_figure(panels, tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


def test_protocols_other_than_the_papers_are_told_in_words():
    rows = {"q": {"knn_top1_k5_cosine_softmax0.07_4shot": 0.5}}
    table = report.comparison_table(rows, headline_k=5)
    assert "50.00" in table and "softmax vote at temperature 0.07, 4 labelled examples a class" in table
    names = list(report.rows_of({"step": 3, "trained": {"q/x": 1.0}, "pixels_32px": {"z/x": 1.0}}))
    assert names == ["q", "pixels at 32 px"]


def put_folder_there(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "nul": lambda path: path.write_bytes(b"\0" * 9),
    "no text": lambda path: path.write_bytes(b"\xff" + path.read_bytes()),
    "list": lambda path: path.write_text("[1]"),
    "number": lambda path: path.write_text("7"),
    "null": lambda path: path.write_text("null"),
    "nothing in it": lambda path: path.write_text("{}"),
    "null in it": lambda path: path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text())))),
    "text in it": lambda path: path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_text()), "a"))),
    "lists in it": lambda path: path.write_text(json.dumps({key: [1] for key in json.loads(path.read_text())})),
    "nested": lambda path: path.write_text("[" * 10**5),
    "folder": put_folder_there,
}


def test_a_field_that_an_earlier_version_did_not_have_counts_as_its_default(tmp_path):
    earlier = write_run(tmp_path / "earlier", seed=0, readouts=("q",), level=0.3, rate=1e-3)
    record = json.loads((tmp_path / "earlier" / "config.json").read_text())
    assert "name" not in record["config"]["optimizer"]
    for seed, optimizer in ((1, "adamw"), (2, "sgd")):
        write_run(tmp_path / f"run{seed}", seed=seed, readouts=("q",), level=0.3)
        record["config"] |= {"seed": seed, "optimizer": {"learning_rate": 1e-3, "name": optimizer}}
        (tmp_path / f"run{seed}" / "config.json").write_text(json.dumps(record))
    assert len(finished.alike([earlier, report.read_run(tmp_path / "run1")])) == 2
    with pytest.raises(UserError, match=r"optimizer\.name: 'adamw' → 'sgd'"):
        finished.alike([earlier, report.read_run(tmp_path / "run2")])


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "summary.json"])
@pytest.mark.parametrize("fault", [fault for fault in DAMAGE if fault not in ("null in it", "lists in it")])
def test_a_damaged_file_of_a_run_is_named_with_the_remedy(tmp_path, name, fault):
    write_run(tmp_path / "run", seed=0, readouts=("q",), level=0.3)
    DAMAGE[fault](tmp_path / "run" / name)
    with pytest.raises(UserError, match=rf"{name}.*(evaluate the run again|restore a copy|a run writes)"):
        report.read_run(tmp_path / "run")


@pytest.mark.parametrize("name", ["run.json", "sessions.json", "metrics.jsonl"])
@pytest.mark.parametrize("fault", DAMAGE)
def test_a_report_does_without_times_and_machines_that_are_damaged(tmp_path, name, fault, caplog):
    if (name != "run.json" and fault.endswith(" in it")) or (name, fault) == ("metrics.jsonl", "folder"):
        return
    workdir = tmp_path / "run"
    write_run(workdir, seed=0, readouts=("q",), level=0.3)
    DAMAGE[fault](workdir / name)
    with warnings.catch_warnings(action="ignore"), caplog.at_level("WARNING", logger="hamjepa_jax"):
        run = report.read_run(workdir)
    _, numbers = report.compare_methods({"hamjepa": [run]}, tmp_path, names=NAMES, published={})
    assert numbers["results"]["hamjepa"]["q"][KNN_KEY]["values"] == [0.3]
    assert name == "metrics.jsonl" or name in caplog.text
    (record,) = report.run_records({"HamJEPA": [run]})
    assert (record["wall_s"] is None) == (name == "sessions.json")


@pytest.mark.parametrize("fault", DAMAGE)
def test_damaged_results_count_as_not_measured(tmp_path, fault, caplog):
    write_run(tmp_path / "run", seed=0, readouts=("q",), level=0.3)
    assert report.measured(tmp_path / "run")["step"] == 10
    DAMAGE[fault](tmp_path / "run" / "metrics.json")
    with caplog.at_level("WARNING", logger="hamjepa_jax"):
        assert report.measured(tmp_path / "run") is None
    assert "metrics.json" in caplog.text
    assert "evaluate the run again" in caplog.text or fault == "folder"


def test_nulls_in_a_log_are_left_out_of_the_report(tmp_path):
    write_run(tmp_path / "run", seed=0, readouts=("q",), level=0.3)
    log = tmp_path / "run" / "metrics.jsonl"
    odd = {"step": 11, "epoch": None, "perf/evaluation_s": None, f"eval/q/{KNN_KEY}": None}
    log.write_text(log.read_text() + json.dumps(odd) + '\n{"step": 12, "epoch": NaN}\n')
    run = report.read_run(tmp_path / "run")
    assert run.steps_per_epoch() == 5
    report.compare_methods({"hamjepa": [run]}, tmp_path, names=NAMES, published={})
