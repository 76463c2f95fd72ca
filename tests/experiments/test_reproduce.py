"""Reproducing a table: all runs and one report, broken off and gone on with, on data of any size."""

import json
import os
import pathlib
import re
import signal
import types

import numpy as np
import pytest
import tiny

from hamjepa_jax import metrics, report, reproduce
from hamjepa_jax.config import shipped
from hamjepa_jax.data import open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import probe_settings
from hamjepa_jax.experiments import many, paper

TINY = {
    "data.image_size": 8, "encoder.width": 4, "encoder.token_layer": 2, "encoder.token_dim": 4,
    "encoder.dtype": "float32", "predictor.hidden": 16, "objective.hamjepa.projection_dim": 8,
    "optimizer.warmup": "2 steps", "train.epochs": 2, "train.batch_size": 256, "log.every": "2 steps",
    "log.tensorboard": False, "log.compilation_cache": "", "checkpoint.every": "3 steps",
    "evaluate.every": "1 epochs", "evaluate.ks": (1, 20), "evaluate.probe.epochs": 1,
}  # fmt: skip
TEXTS = {field: str(value) for field, value in TINY.items()}


def arguments(out, *options, **changes):
    overrides = [f"--override={field}={value}" for field, value in (TINY | changes).items()]
    return ["--table=cifar100_30", "--data=digits", f"--out={out}", *overrides, *options]


def interrupt(monkeypatch, at):
    """Sends this process a SIGTERM at the `at`-th log of the training runs together."""
    ticks, tick = iter(range(10**6)), many._Session.tick

    def tick_and_stop(self, *args):
        tick(self, *args)
        if args and next(ticks) == at:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(many._Session, "tick", tick_and_stop)


def without_clock(text):
    """A report up to the times of its runs."""
    return text.split("## Runs")[0]


@pytest.mark.slow
def test_three_seeds_interrupted_and_resumed_give_the_same_report(tmp_path, monkeypatch, caplog, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    chosen = "--methods=hamjepa,sigreg"
    assert reproduce.main(arguments(whole, chosen)) == 0
    with monkeypatch.context() as patch:
        interrupt(patch, at=6)  # in the second run
        with caplog.at_level("INFO", logger="hamjepa_jax"):
            assert reproduce.main(arguments(broken, chosen)) == 0
    assert "stopped; the same command goes on from there" in caplog.text
    assert not (broken / "report.md").exists()
    assert (broken / "runs" / "hamjepa_seed0" / "metrics.json").exists()
    # What is done so far can be looked at.
    assert reproduce.main(arguments(broken, chosen, "--report_only")) == 0
    assert "Not complete: seeds done are HamJEPA 1 of 3, SIGReg 0 of 3." in (broken / "report.md").read_text()
    assert reproduce.main(arguments(broken, chosen)) == 0

    results, of_broken = (json.loads((out / "results.json").read_text()) for out in (whole, broken))
    records = [[(r["name"], r["seed"], r["sessions"]) for r in found.pop("runs")] for found in (results, of_broken)]
    assert records[0] == [(method, seed, 1) for method in ("hamjepa", "sigreg") for seed in (0, 1, 2)]
    assert sum(sessions for _, _, sessions in records[1]) == 7  # one of them in two sessions
    assert "reproduce --table" in results.pop("command") and of_broken.pop("command")
    assert of_broken == results
    reports = [(out / "report.md").read_text() for out in (whole, broken)]
    assert without_clock(reports[0]) == without_clock(reports[1])
    assert "2 sessions" in reports[1] and "2 sessions" not in reports[0]

    assert results["seeds"] == [0, 1, 2] and results["protocol"]["knn"] == "knn_top1_k20_cosine_majority"
    key = "probe_top1_adamw_lr0.001_wd1e-06_bs256_ep1"
    for method, readouts in {"hamjepa": ["q", "p", "qp"], "sigreg": ["z"]}.items():
        assert list(results["results"][method]) == readouts
        for readout in readouts:
            values = []
            for seed in (0, 1, 2):
                metrics = json.loads((whole / "runs" / f"{method}_seed{seed}" / "metrics.json").read_text())
                values.append(metrics["trained"][f"{readout}/{key}"])
            assert results["results"][method][readout][key]["values"] == values
            assert results["results"][method][readout][key]["mean"] == np.mean(values)
    assert len(results["differences"]) == 3 * 2 and all(0 <= d["p"] <= 1 for d in results["differences"])
    html = (whole / "report.html").read_text()
    assert "published kNN" not in html and "No published numbers" in html

    # Done: nothing is trained, and nothing changes.
    times = {p: p.stat().st_mtime_ns for p in (whole / "runs").rglob("metrics.json*")}
    assert reproduce.main(arguments(whole, chosen)) == 0
    assert {p: p.stat().st_mtime_ns for p in (whole / "runs").rglob("metrics.json*")} == times
    # Runs with other settings are not taken for these, nor averaged with them.
    assert reproduce.main(arguments(whole, chosen, **{"optimizer.learning_rate": 0.1})) == 2
    assert "optimizer.learning_rate: 0.0005 → 0.1" in capsys.readouterr().err
    # Another protocol: evaluated anew, not trained.
    run = whole / "runs" / "sigreg_seed0"
    log = (run / "metrics.jsonl").read_bytes()
    one = arguments(whole, "--methods=sigreg", "--seeds=0", **{"evaluate.ks": (3,)})
    assert reproduce.main(one) == 0
    assert "z/knn_top1_k3_cosine_majority" in json.loads((run / "metrics.json").read_text())["trained"]
    assert (run / "metrics.jsonl").read_bytes() == log


def test_a_run_evaluated_half_way_is_not_reported(tmp_path, caplog, capsys):
    config = paper.make_config(
        paper.TABLES["cifar100_30"].recipes["hamjepa"], None, "digits", open_source("digits"), False, TEXTS
    )
    workdir = tmp_path / "runs" / "hamjepa_seed0"
    tiny.write_evaluated(workdir, config, step=3, logged={"step": 4, "epoch": 0.8})
    with caplog.at_level("INFO", logger="hamjepa_jax"):
        assert reproduce.main(arguments(tmp_path, "--report_only", "--methods=hamjepa", "--seeds=0")) == 2
    assert "evaluated at step 3 of 10; left out" in caplog.text
    assert "no run is done yet" in capsys.readouterr().err


def test_a_run_without_the_features_to_compare_with_is_evaluated_again(tmp_path):
    config = tiny.quick()
    protocol = metrics.Protocol(ks=(1, 5), probe=probe_settings(config))
    tiny.write_evaluated(tmp_path / "run", config, step=10, logged={})
    keys = metrics.expected_keys(protocol, ("q", "p", "qp"))

    def measured(references, **kinds):
        content = {"step": 10, "trained": dict.fromkeys(keys, 0.5)} | kinds
        (tmp_path / "run" / "metrics.json").write_text(json.dumps(content))
        config.evaluate.references = references
        return many._is_measured(config, tmp_path / "run")

    assert measured(()) and not measured(("untrained",)) and not measured(("untrained", "pixels"), untrained={})
    assert measured(("untrained", "pixels"), untrained={}, pixels_32px={}) and measured((), untrained={})


@pytest.mark.parametrize("asked", ["lidar", "probes"])
def test_a_run_is_evaluated_again_where_a_further_measure_is_asked_for_or_not_any_more(asked, tmp_path):
    config = tiny.quick()
    wanted = metrics.expected_keys(metrics.Protocol(ks=(1, 5), probe=probe_settings(config)), ("q", "p", "qp"))
    has = {"lidar": {"trained": {"q/lidar_n8_v4": 3.0}}, "probes": {"on digits": {"q/rankme": 3.0}}}[asked]
    for lidar, probes in ((0, ()), (8, ()) if asked == "lidar" else (0, ("digits",))):
        config.evaluate.lidar.images, config.evaluate.probes = lidar, probes
        for measured in ({}, has):
            tiny.write_evaluated(tmp_path / f"{lidar} {probes} {measured}", config, step=10, logged={})
            content = (
                {"step": 10} | measured | {"trained": dict.fromkeys(wanted, 0.5) | measured.get("trained", {})}
            )
            (tmp_path / f"{lidar} {probes} {measured}" / "metrics.json").write_text(json.dumps(content))
            complete = many._is_measured(config, tmp_path / f"{lidar} {probes} {measured}")
            assert complete == (bool(lidar or probes) == bool(measured))


def test_a_run_without_labels_that_was_evaluated_on_labelled_images_is_done(tmp_path, monkeypatch):
    config = tiny.quick()
    config.evaluate.source = "digits"
    wanted = metrics.expected_keys(metrics.Protocol(ks=(1, 5), probe=probe_settings(config)), ("q", "p", "qp"))
    tiny.write_evaluated(tmp_path / "run", config, step=12, logged={})
    (tmp_path / "run" / "metrics.json").write_text(json.dumps({"step": 12, "trained": dict.fromkeys(wanted, 0.5)}))
    monkeypatch.setattr(many, "_is_trained", lambda *_: True)
    monkeypatch.setattr(many, "evaluate", lambda *_: pytest.fail("it is evaluated again"))
    unlabelled = types.SimpleNamespace(labelled=False)
    assert many.complete(config, tmp_path / "run", unlabelled)


@pytest.mark.parametrize("field, value", [("source", "digits"), ("teacher", True)])
def test_a_run_that_was_evaluated_on_other_images_or_weights_is_evaluated_again(
    field, value, tmp_path, monkeypatch
):
    """No key of a metric tells these."""
    config, source = tiny.quick(), open_source("synthetic:96x8")
    tiny.write_evaluated(tmp_path / "run", config, step=12, logged={})
    record = json.loads((tmp_path / "run" / "config.json").read_text()) | {"data_fingerprint": source.fingerprint()}
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    other = config.copy_and_resolve_references()
    other.evaluate[field] = value
    monkeypatch.setattr(many, "_accuracies", lambda texts: None)
    evaluated = []
    monkeypatch.setattr(many, "evaluate", lambda config, workdir: evaluated.append(config))
    run = tmp_path / "run"
    assert many.complete(config, run, source) and not evaluated
    assert many.complete(other, run, source) and evaluated.pop() is other
    # `--mode=evaluate` measures a run by settings that its config.json does not have.
    settings = {"evaluate.source": None, "evaluate.teacher": False} | {f"evaluate.{field}": value}
    (run / "metrics.json").write_text(json.dumps({"step": 12, "settings": settings, "trained": {}}))
    assert report.read_run(run).config[f"evaluate.{field}"] == value
    assert many.complete(other, run, source) and not evaluated
    assert many.complete(config, run, source) and evaluated.pop() is config
    assert not report.is_free(f"evaluate.{field}") and report.is_free("evaluate.ks")


def test_a_run_on_data_without_labels_has_no_accuracies_to_miss(tmp_path):
    """It is not evaluated again and again."""
    config = tiny.quick()
    tiny.write_evaluated(tmp_path / "run", config, step=10, logged={})
    assert many._is_measured(config, tmp_path / "run", labelled=False)
    assert not many._is_measured(config, tmp_path / "run", labelled=True)


@pytest.mark.parametrize(
    "data, message",
    [
        ("synthetic:40x32", "does not state the states of its frames; .* with --data=trajectories:pendulum"),
        (
            "trajectories:spring?train=20&test=10&test_frames=2",
            "have 2 frames; rollouts need more than views.stack 2",
        ),
    ],
)
def test_clips_without_anything_to_measure_are_refused_before_training(data, message, tmp_path, capsys):
    assert reproduce.main(["--table=trajectories", f"--data={data}", f"--out={tmp_path}/out"]) == 2
    assert re.search(f"--table=trajectories: .*{message}", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_the_data_are_opened_by_the_configs_loader(tmp_path, monkeypatch, capsys):
    def refuse(spec, *, loader):
        raise UserError(f"{spec} by {loader}")

    monkeypatch.setattr(paper, "open_source", refuse)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "cifar100_sigreg.py").write_text(
        "from hamjepa_jax.config import shipped\n\n\n"
        "def get_config(arg=None):\n"
        "    config = shipped('cifar100_sigreg', arg)\n"
        "    config.data.loader = 'tfdata'\n"
        "    return config\n"
    )
    for options, loader in (
        ([f"--configs={tmp_path / 'own'}"], "tfdata"),
        (["--override=data.loader=tfdata"], "tfdata"),
        ([f"--configs={tmp_path / 'own'}", "--override=data.loader=grain"], "grain"),
    ):
        standard = ["--table=cifar100_30", "--data=tfds:some", f"--out={tmp_path}", "--methods=sigreg"]
        assert reproduce.main([*standard, *options]) == 2
        assert f"tfds:some by {loader}" in capsys.readouterr().err


def test_recipes_are_fitted_to_the_data_and_published_numbers_kept_for_the_tables_own():
    digits, table = open_source("digits"), paper.TABLES["cifar100_80"]
    config = paper.make_config(table.recipes["mlp"], None, "digits", digits, False, {"train.batch_size": "64"})
    pixels = digits.train.images / 255
    np.testing.assert_allclose(config.data.mean, pixels.mean(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(config.data.std, pixels.std(axis=(0, 1, 2)), atol=1e-4)
    assert config.data.eval_resize == 32 and config.predictor.kind == "mlp"
    assert config.train.epochs == 80 and config.train.batch_size == 64
    kept = paper.make_config(table.recipes["hamjepa"], None, "cifar100:", digits, True, {})
    assert kept.data.mean == (0.5071, 0.4867, 0.4408) and kept.data.eval_resize is None
    for spec in ("digits", "arrays:cifar.npz", "synthetic:1000"):
        assert not paper.is_own_data(table, spec, digits)
        assert not paper.is_own_data(paper.TABLES["imagenet100"], spec, digits)
    for name, paper_table in paper.TABLES.items():
        for recipe in paper_table.recipes.values():
            paper.make_config(recipe, None, "digits", digits, True, {})
        assert set(report.PUBLISHED.get(name, {}).keys()) <= {
            (m, r) for m in paper_table.recipes for r in ("q", "p", "qp", "z")
        }


@pytest.mark.parametrize(
    "options, message",
    [
        (["--table=cifar10"], "--table"),
        (["--methods=simclr"], "--methods simclr"),
        (["--seeds=0,0"], "--seeds"),
        (["--seeds=first"], "--seeds"),
        (["--data=nothing:"], "nothing"),
        (["--override=train.epoch=3"], "train.epoch: .*did you mean train.epochs"),
        (["--override=train.epochs=three"], "train.epochs 'three'"),
        (["--override=train.epochs"], "--override train.epochs: expected"),
        (["--override=encoder.token_dim=3"], "encoder.token_dim 3"),
        (["--override=seed=3"], "--seeds"),
        (["--configs=/nowhere"], "/nowhere"),
        (["--report_only"], "no run is done yet"),
    ],
)
def test_mistakes_get_one_sentence_before_any_training(options, message, tmp_path, capsys):
    standard = ["--table=cifar100_30", "--data=digits", f"--out={tmp_path}"]
    try:
        status = reproduce.main([*standard, *options])
    except SystemExit as stopped:
        status = stopped.code
    lines = capsys.readouterr().err.splitlines()
    assert status == 2 and len(lines) == 1 and re.search(f"^error: .*{message}", lines[0]), lines


def test_the_matched_table_takes_configs_and_refuses_another_protocol(tmp_path):
    table, digits = paper.TABLES["matched"], open_source("digits")
    own = tmp_path / "spread.py"
    own.write_text(
        "from hamjepa_jax.config import shipped\n\n\ndef get_config(arg=None):\n"
        "    config = shipped('cifar100_vicreg')\n    config.objective.vicreg.std_target = 2.0\n    return config\n"
    )
    recipes = paper.chosen_recipes(table, (str(own), "byol", "cifar100_hamsigreg_chain"))
    assert list(recipes) == ["byol", "spread", "cifar100_hamsigreg_chain"]
    configs = {m: paper.make_config(recipe, None, "digits", digits, True, {}) for m, recipe in recipes.items()}
    paper.check_matched(configs)
    assert configs["spread"].objective.vicreg.std_target == 2.0
    configs["spread"].train.epochs = 31
    with pytest.raises(UserError, match=r"--methods spread: its train\.epochs is 31 and that of byol 30"):
        paper.check_matched(configs)
    with pytest.raises(
        UserError, match=r"--methods cifar1000: must be among hamjepa, .*, or a shipped config's name"
    ):
        paper.chosen_recipes(table, ("cifar1000",))
    for name in ("matched", "matched_shapes"):
        recipes = paper.chosen_recipes(paper.TABLES[name], None) | paper.chosen_recipes(
            paper.TABLES[name], (str(own),)
        )
        whole = {m: paper.make_config(r, None, "digits", digits, True, {}) for m, r in recipes.items()}
        paper.check_matched(whole)
    assert {"byol", "kerjepa", "simdino", "hamsigreg_diag"} < set(whole)
    assert set(whole) - {"spread"} == set(table.recipes) <= set(report.METHOD_NAMES)


PLUGIN = f"""
import tiny

def get_config(arg=None):
    config = tiny.quick()
    config.plugins = (*config.plugins, {str(pathlib.Path(__file__).parents[1] / "plugins" / "toy_objective.py")!r})
    config.objective.name = "toy_matrix"
    return config
"""


def own_methods(folder):
    """Two files of quick configs, the second one with an objective of its own."""
    (folder / "plain.py").write_text("from tiny import quick\n\n\ndef get_config(arg=None):\n    return quick()\n")
    (folder / "toy.py").write_text(PLUGIN)
    return [str(folder / "plain.py"), str(folder / "toy.py")]


def matched(out, methods, *options):
    short = ("--override=train.epochs=1", "--override=evaluate.every=", "--override=evaluate.ks=1,5,20")
    data = ["--table=matched", "--data=synthetic:96x8", f"--out={out}", "--seeds=3"]
    return reproduce.main([*data, f"--methods={','.join(methods)}", *short, *options])


@pytest.mark.slow
def test_a_plugins_method_is_trained_beside_another_and_drawn_against_it(tmp_path):
    assert matched(tmp_path / "out", own_methods(tmp_path), "--pictures") == 0
    html = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Pictures of plain, seed 3</h2>" in html and "<h2>Pictures of toy, seed 3</h2>" in html
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["results"]) == ["plain", "toy"] and results["seeds"] == [3]
    assert [run["workdir"] for run in results["runs"]] == ["plain_seed3", "toy_seed3"]
    assert {(d["method"], d["against"]) for d in results["differences"]} == {("plain", "toy")}
    config = json.loads((tmp_path / "out" / "runs" / "toy_seed3" / "config.json").read_text())["config"]
    assert config["objective"]["name"] == "toy_matrix" and config["seed"] == 3
    for name in ("report.md", "report.html"):
        assert "Differences from plain q, paired by seed" in (tmp_path / "out" / name).read_text()
    assert (tmp_path / "out" / "plots" / "differences.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "text, message",
    [
        (None, r"mine\.py.*"),
        ("import nothing_of_this_name", "mine.py.*nothing_of_this_name"),
        ("x = 1", "mine.py.*get_config"),
        ("def get_config(arg=None):\n    return 3", "mine.py.*"),
        (PLUGIN.replace("toy_matrix", "toy_matrixx"), "objective.name .*toy_matrixx.*"),
        (PLUGIN.replace("toy_objective.py", "nowhere.py"), "nowhere.py"),
        (PLUGIN.replace("return", "config.encoder.token_hw = 4; return"), "mine: its encoder.token_hw is 4"),
    ],
)  # fmt: skip
def test_a_method_that_cannot_be_used_gets_one_sentence(text, message, tmp_path, capsys):
    plain, _ = own_methods(tmp_path)
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    assert matched(tmp_path / "out", [plain, str(tmp_path / "mine.py")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(f"^error: .*{message}", lines[0]), lines
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "methods, message",
    [
        (["nope"], "--methods nope: must be among hamjepa, mlp, .*, or a shipped config's name, or FILE.py"),
        (["missing.py"], r"--methods missing\.py: must be among hamjepa, .*, or FILE\.py"),
        (["byol", "hamjepa", "byol"], "--methods byol: is named 2 times; give each method once"),
        (["hamjepa", "cifar100_i_jepa"], "--methods cifar100_i_jepa: .*token_hw"),
    ],
)
def test_methods_that_cannot_be_compared_get_one_sentence(methods, message, tmp_path, capsys):
    short = ["--override=encoder.token_hw=1"] if "hamjepa" in methods else []
    assert matched(tmp_path / "out", methods, *short) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"^error: {message}", line), line
    assert not (tmp_path / "out").exists()


def test_two_methods_of_one_name_are_refused(tmp_path, capsys):
    plain, _ = own_methods(tmp_path)
    (tmp_path / "byol.py").write_text(PLUGIN)
    assert matched(tmp_path / "out", [plain, str(tmp_path / "byol.py")]) == 2
    assert "another method is called byol too" in capsys.readouterr().err


def test_recipes_are_fitted_to_the_states_and_the_time_step_of_clips():
    table = paper.TABLES["trajectories"]
    for system, size in (("spring", 2), ("two_body", 4)):
        spec = f"trajectories:{system}?train=10&test=10&frames=7&test_frames=7&dt=0.3"
        source = open_source(spec)
        assert paper.is_own_data(table, spec, source)
        configs = {m: paper.make_config(r, None, spec, source, True, {}) for m, r in table.recipes.items()}
        for config in configs.values():
            assert config.encoder.embed_dim == size
            assert config.predictor.step_size * config.predictor.num_steps == pytest.approx(0.3)
        assert configs["general"].predictor.energy == "general" and configs["euler"].predictor.method == "euler"
        assert configs["mlp"].predictor.kind == "mlp" and configs["identity"].predictor.kind == "identity"
    assert "embed_dim" not in str(paper.fit_to_clips(configs["mlp"], open_source("digits")))
    tokens = shipped("cifar100")
    assert paper.fit_to_clips(tokens, source) == {"predictor.step_size": 0.15}  # Tokens have a number of their own.


@pytest.mark.slow
def test_the_table_of_clips_measures_every_run_once(tmp_path):
    spec = "trajectories:spring?train=32&test=10&frames=7&test_frames=8"
    changes = {
        "encoder.width": 4, "predictor.hidden": 8, "train.epochs": 1, "train.batch_size": 16,
        "log.tensorboard": False, "log.compilation_cache": "",
    }  # fmt: skip
    options = [f"--override={field}={value}" for field, value in changes.items()]
    call = [
        "--table=trajectories",
        f"--data={spec}",
        f"--out={tmp_path}",
        "--seeds=0",
        "--methods=hamjepa,identity",
    ]
    assert reproduce.main([*call, *options]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["trajectories"]) == {"hamjepa", "identity"}
    (found,) = results["trajectories"]["hamjepa"]
    assert found["frames"] == 6 and found["gap"] == 4 and "energy" in found and found["seed"] == 0
    assert "energy" not in results["trajectories"]["identity"][0]
    text = (tmp_path / "report.md").read_text()
    assert "States, rollouts and energy" in text and "| error forward, 6 frames |" in text
    kept = tmp_path / "runs" / "hamjepa_seed0" / "trajectories.json"
    before = kept.stat().st_mtime_ns
    assert reproduce.main([*call, *options]) == 0 and kept.stat().st_mtime_ns == before
    kept.write_text("{}")  # Damaged: measured again.
    assert reproduce.main([*call, *options]) == 0 and json.loads(kept.read_text())["checkpoints"]
