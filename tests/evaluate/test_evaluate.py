"""The evaluate command on a tiny run: its files, its numbers, other data, exported features, mistakes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import tiny

from hamjepa_jax import build, evaluation
from hamjepa_jax.data import ArraySplit, DeviceStore, Source, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.evaluate import Evaluator, checkpoints, evaluate
from hamjepa_jax.evaluate.__main__ import main
from hamjepa_jax.evaluate.pictures import evaluation_images, gallery_caption, tokens_of
from hamjepa_jax.evaluate.random_views import RandomViews
from hamjepa_jax.run.restore import load_run
from hamjepa_jax.run.setup import set_up
from hamjepa_jax.run.workdir import saved_config
from hamjepa_jax.train import train
from hamjepa_jax.training.mesh import make_mesh
from hamjepa_jax.transfer import finetune, measure
from hamjepa_jax.transfer.__main__ import main as transfer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(workdir, result) of a run with checkpoints at steps 6 and 12."""
    config = tiny.quick("hamjepa")
    config.checkpoint.every, config.evaluate.every = "6 steps", ""
    workdir = tmp_path_factory.mktemp("run")
    return workdir, train(config, workdir)


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_all_checkpoints_with_everything_that_can_be_asked_for(run, tmp_path):
    workdir, result = run
    options = ["--views", "--flow=2", "--lidar=4", "--metric=chain:beta=0.5", "--references=untrained,pixels"]
    assert main([str(workdir), "--steps=all", f"--out={tmp_path}", *options]) == 0
    found = metrics_of(tmp_path)
    assert found["evaluation"]["evaluated_on"] == found["evaluation"]["trained_on"] == "synthetic:96x8"
    assert found["evaluation"]["seed"] == 0 and found["evaluation"]["fingerprint"]
    assert [(c["step"], c["epoch"]) for c in found["checkpoints"]] == [(6, 1.0), (12, 2.0)]
    last = found["checkpoints"][-1]
    assert set(last) == {"step", "epoch", "trained", "transformed", "untrained", "pixels"}
    # The same numbers as at the end of training, and more.
    assert result["trained"].items() <= last["trained"].items()
    for readout in ("q", "p", "qp"):
        assert 0 < last["trained"][f"{readout}/alignment_views"] < 4
        assert last["trained"][f"{readout}/uniformity_views"] < 0
        assert 0 < last["trained"][f"{readout}/lidar_n4_v50"] < 3.01
    # Leapfrog on a separable energy: symplectic and reversible, whatever was learned.
    assert last["trained"]["flow/mean_abs_log_abs_det"] < 1e-5
    assert last["trained"]["flow/max_symplectic_defect"] < 1e-5
    assert last["trained"]["flow/median_reversal_error"] < 1e-6
    assert last["trained"]["flow/median_energy_drift_x50"] < 1e-2
    assert last["transformed"]["q/mean_norm"] != last["trained"]["q/mean_norm"]
    assert found["checkpoints"][0]["pixels"] == last["pixels"]
    for file in (
        "table.txt",
        "step_6/summary.json",
        "step_6/q.png",
        "step_12/readouts.png",
        "step_12/neighbours.png",
    ):
        assert (tmp_path / file).stat().st_size > 0
    for figure in ("training_dynamics.png", "decomposition.png"):
        assert (tmp_path / "plots" / figure).read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "table.txt").read_text()
    assert "seed 0" in table and "H½ q" in table and "raw pixels" in table and "synthetic:96x8" in table


def test_transfer_few_shots_and_exported_features(run, tmp_path):
    workdir, _ = run
    out, features = tmp_path / "out", tmp_path / "features"
    options = [
        "--few_shot=4",
        "--vote=softmax",
        "--published_top5",
        "--readouts=qp",
        "--learning_rates=1e-3,1e-2",
        f"--export={features}",
    ]
    assert main([str(workdir), "--source=digits", f"--out={out}", *options]) == 0
    found = metrics_of(out)
    assert found["evaluation"]["trained_on"] == "synthetic:96x8" and found["evaluation"]["evaluated_on"] == "digits"
    (checkpoint,) = found["checkpoints"]
    assert checkpoint["step"] == 12
    with np.load(next(features.iterdir())) as file:
        exported = dict(file)
    digits = open_source("digits")
    np.testing.assert_array_equal(exported["test_labels"], digits.test.labels)
    assert exported["train_features"].shape == (1442, 64) and exported["split_qp"]
    rows = evaluation.few_shot_rows(exported["train_labels"], 4, num_classes=10, seed=0)
    accuracy = evaluation.knn_accuracy(
        exported["train_features"][rows],
        exported["train_labels"][rows],
        exported["test_features"],
        exported["test_labels"],
        ks=(5,),
        num_classes=10,
        vote="softmax",
        published=True,
    )
    published = "qp/knn_top5_published_k5_cosine_softmax0.07_4shot"
    assert checkpoint["trained"][published] == accuracy["top5_published"][5]
    assert checkpoint["trained"]["qp/knn_top1_k5_cosine_softmax0.07_4shot"] == accuracy["top1"][5]
    assert "qp/probe_top1_adamw_lr0.01_wd1e-06_bs256_ep1_4shot" in checkpoint["trained"]
    assert not any(key.startswith("q/") for key in checkpoint["trained"])


@pytest.mark.slow
def test_the_training_data_need_not_be_there_to_evaluate_on_other_images(run, tmp_path):
    workdir, _ = run
    moved = tmp_path / "run"
    shutil.copytree(workdir, moved)
    record = json.loads((moved / "config.json").read_text())
    record["config"]["data"]["source"] = "folder:/gone"
    (moved / "config.json").write_text(json.dumps(record))
    options = ["--source=digits", "--readouts=q", "--probe_epochs=0", "--flow=1", "--steps=6"]
    assert main([str(moved), f"--out={tmp_path / 'other'}", *options]) == 0
    assert main([str(workdir), f"--out={tmp_path / 'same'}", *options]) == 0
    (checkpoint,) = metrics_of(tmp_path / "other")["checkpoints"]
    assert [checkpoint] == metrics_of(tmp_path / "same")["checkpoints"] and checkpoint["epoch"] == 1.0
    assert main([str(moved), f"--out={tmp_path / 'none'}"]) == 2


def test_a_workdir_that_cannot_be_written_is_evaluated_into_another_folder(run, tmp_path, monkeypatch, caplog):
    workdir, result = run

    def refuse(directory):
        raise UserError(f"{directory}: read-only.")

    monkeypatch.setattr(checkpoints.disk, "check_writable", refuse)  # chmod would not stop the superuser
    monkeypatch.chdir(tmp_path)
    before, config = (workdir / "metrics.json").stat().st_mtime_ns, saved_config(workdir)
    assert metrics_of(workdir)["settings"] == {"evaluate.source": None, "evaluate.teacher": False}
    config.evaluate.source = config.data.source
    with caplog.at_level("INFO"):
        assert evaluate(config, workdir)["trained"] == result["trained"]
    out = tmp_path / f"evaluation_of_{workdir.name}"
    assert f"{workdir}: cannot be written, so the results go to {out}" in caplog.text
    assert str(out / "metrics.json") in caplog.text and metrics_of(out)["step"] == 12
    assert metrics_of(out)["settings"]["evaluate.source"] == config.data.source  # As it was evaluated.
    assert (out / "plots" / "learning_curve.png").exists()
    assert (workdir / "metrics.json").stat().st_mtime_ns == before


def test_features_as_files_that_can_be_memory_mapped(run, tmp_path):
    workdir, _ = run
    options = [f"--export={tmp_path}", "--export_format=npy", "--probe_epochs=0", "--ks=1", "--steps=6"]
    assert main([str(workdir), *options]) == 0
    (folder,) = tmp_path.iterdir()
    assert np.load(folder / "train_features.npy", mmap_mode="r").shape == (96, 64)
    keys = metrics_of(workdir / "evaluation")["checkpoints"][0]["trained"]
    assert next(iter(keys)) == "q/knn_top1_k1_cosine_majority" and not any("probe" in key for key in keys)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--steps=7"], "--steps 7.*6, 12"),
        (["--steps=first"], "--steps first"),
        (["--readouts=z"], "--readouts z.*q, p, qp"),
        (["--metric=trained"], "--metric trained.*hamjepa"),
        (["--metric=chain:beta=2"], "--metric chain.*beta"),
        (["--few_shot=99"], "--few_shot 99: the smallest class.*1 to 9"),
        (["--lidar=1"], r"evaluate\.lidar\.images 1"),
        (["--vote=loud"], "--vote"),
        (["--temperature=0"], "--temperature 0"),
        (["--learning_rates=fast"], "--learning_rates"),
        (["--source=nothing:"], "nothing"),
        (["--views=2"], "--views"),
        (["--source="], "--source: is empty"),
        (["--out="], "--out: the path is empty"),
        (["--export="], "--export: the path is empty"),
        (["/nowhere"], "/nowhere"),
    ],
)
def test_mistakes_get_one_sentence(options, message, run, capsys):
    import re

    try:
        status = main([str(run[0]), *options])
    except SystemExit as stopped:
        status = stopped.code
    lines = capsys.readouterr().err.splitlines()
    assert status == 2 and len(lines) == 1 and re.search(f"^error: .*{message}", lines[0]), lines


def test_a_folder_that_cannot_be_made_is_told_before_any_work(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(checkpoints, "evaluate_workdir", lambda *_, **__: pytest.fail("evaluated"))
    (tmp_path / "file").touch()
    for flag in ("--out", "--export"):
        assert main([str(run[0]), f"{flag}={tmp_path}/file/folder"]) == 2
        assert capsys.readouterr().err.startswith(f"error: {flag} {tmp_path}/file/folder: cannot be made")


def test_a_run_s_own_results_are_not_written_over(run, tmp_path, capsys):
    workdir, _ = run
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text((workdir / "config.json").read_text())
    before = metrics_of(workdir)
    for arguments, out in (
        ([f"--out={workdir}"], workdir),
        ([str(tmp_path / "other"), f"--out={workdir.parent}"], workdir),  # One folder below it for each.
    ):
        assert main([str(workdir), *arguments]) == 2
        assert f"error: --out {out}: holds a run" in capsys.readouterr().err
    assert metrics_of(workdir) == before


def test_the_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "hamjepa_jax.evaluate", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "holds no run" in done.stderr


def test_images_on_the_device_give_the_same_numbers(run):
    loaded = load_run(run[0])
    store = DeviceStore(loaded.source.train, loaded.mesh, memory_budget_gb=1.0)
    plain = Evaluator(loaded.config, loaded.model, loaded.source, loaded.mesh)
    resident = Evaluator(loaded.config, loaded.model, loaded.source, loaded.mesh, train_images=store.images)
    on_device, on_host = (e.in_training(e.features(loaded.state), loaded.state) for e in (resident, plain))
    assert on_device == on_host


def test_random_views_are_the_same_in_any_batch_and_from_files(run, tmp_path):
    """States of v views of n images: of images in memory, and of photographs, which differ in size."""
    loaded = load_run(run[0])
    photographs = open_source(tiny.photographs(tmp_path / "photos", train=1, val=4))
    config = loaded.config
    config.evaluate.lidar.images, config.evaluate.lidar.views = 6, 3
    for source in (loaded.source, photographs):
        found = []
        for batch_size in (1, 32):
            config.evaluate.batch_size = batch_size
            found.append(RandomViews(config, loaded.model, source.test, loaded.mesh).states(loaded.state))
        assert found[0].shape == (6, 3, loaded.model.features(
            loaded.state.params, loaded.state.batch_stats, np.zeros((1, 8, 8, 3), np.float32)
        ).shape[1])  # fmt: skip
        np.testing.assert_allclose(*found, atol=1e-5)
        assert len(np.unique(found[0].reshape(18, -1), axis=0)) == 18


def test_pictures_are_drawn_and_stand_on_one_page(run, tmp_path):
    workdir, _ = run
    assert main([str(workdir), f"--out={tmp_path}", "--pictures", "--ks=1", "--probe_epochs=0"]) == 0
    folder = tmp_path / "step_12" / "pictures"
    names = ("gallery", "map", "tokens", "pairs", "trajectories")
    assert all((folder / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)
    assert (folder / "report.html").read_text().count('src="data:image/png') == len(names)


def test_a_gallery_has_queries_that_are_right_and_that_are_wrong(run):
    loaded = load_run(run[0])
    evaluator = Evaluator(loaded.config, loaded.model, loaded.source, loaded.mesh)
    z = np.random.default_rng(0).standard_normal((10, 8)).astype(np.float32)
    bank = np.concatenate([z] * 10)[:96]  # Test image i has class i, as every tenth training image has.
    swapped = z[[1, 0, 2, 3, 4, 5, 6, 7, 8, 9]]
    found = evaluator.gallery([bank, swapped], 3)
    assert list(found.by) == ["q", "p", "(q,p)"]
    assert [of_query[0].same_class for of_query in found.by["(q,p)"]] == [True, True, True, False, False]
    np.testing.assert_array_equal(found.queries[3], loaded.source.test.image(0))


def test_a_gallery_without_labels_speaks_of_no_class():
    assert "class" in gallery_caption("q", labelled=True) and "class" not in gallery_caption("q", labelled=False)


def test_tokens_before_pooling_average_to_the_state(run):
    loaded = load_run(run[0])
    images = evaluation_images(loaded.config, loaded.source, 4)
    tokens = tokens_of(loaded.config, loaded.state, images)
    config = loaded.config.copy_and_resolve_references()
    config.encoder.token_hw = 1
    z = build.build_model(config).features(
        loaded.state.params, loaded.state.batch_stats, build.eval_transform(config)(images)
    )
    np.testing.assert_allclose(tokens.mean(axis=(1, 2)), z, atol=1e-5)


@pytest.mark.slow
def test_transfer_goes_on_where_it_was_interrupted(run, tmp_path, monkeypatch, capsys):
    """Two sources, few and all labels, two seeds: the cells that are there are not measured again."""
    for name, seed, size in (("flowers", 0, 8), ("mine", 1, 12)):
        rng = np.random.default_rng(seed)
        arrays = {}
        for split, n in (("train", 24), ("test", 12)):
            labels = np.arange(n) % 3
            noise = rng.integers(0, 60, (n, size, size, 3))
            arrays |= {f"{split}_images": (noise + 60 * labels[:, None, None, None]).astype(np.uint8)}
            arrays |= {f"{split}_labels": labels}
        np.savez(tmp_path / f"{name}.npz", class_names=np.array(["a", "b", "c"]), **arrays)
    words = [str(run[0]), f"--sources=flowers,arrays:{tmp_path / 'mine.npz'}", "--shots=2,all", "--seeds=2"]
    words += [f"--data_dir={tmp_path}"]
    calls, whole = [], measure.measure

    def counted(*args, **named):
        if len(calls) == 3:
            raise UserError("interrupted")
        calls.append(args[2:])
        return whole(*args, **named)

    monkeypatch.setattr(measure, "measure", counted)
    assert transfer([*words, f"--out={tmp_path / 'out'}"]) == 2
    before = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(before["cells"]) == 3 and not (tmp_path / "out" / "report.html").exists()
    monkeypatch.setattr(measure, "measure", lambda *args, **named: calls.append(args[2:]) or whole(*args, **named))
    assert transfer([*words, f"--out={tmp_path / 'out'}"]) == 0
    assert len(calls) == 8 and calls[:4] == [(2, 0), (2, 1), ("all", 0), ("all", 1)]
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["cells"][:3] == before["cells"] and len(content["cells"]) == 8
    # Measured again from the start, every number is the same.
    assert transfer([*words, f"--out={tmp_path / 'again'}"]) == 0
    assert json.loads((tmp_path / "again" / "results.json").read_text())["cells"] == content["cells"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<tr>") == 5 and "flowers" in page and "logistic regression %" in page and "±" in page
    capsys.readouterr()
    for odd, message in (
        (
            "--sources=pets",
            r"put its images into .*pets/train/<class>/ .* the TFDS set 'oxford_iiit_pet'",
        ),
        ("--shots=9", r"the smallest class of flowers has 8 training images"),
        ("--shots=some", r'give whole numbers of images a class from 1, or "all"'),
        ("--readout=z", r"this run's states have qp, q, p"),
    ):
        assert transfer([*words, odd, f"--out={tmp_path / 'odd'}"]) == 2
        assert re.search(message, capsys.readouterr().err)


@pytest.mark.slow
def test_fine_tuning_goes_on_where_it_was_interrupted(run, tmp_path, monkeypatch):
    """Two sources, two seeds, stopped by a signal in the middle of the second: as if it never was."""
    rng = np.random.default_rng(0)
    for name, size in (("flowers", 8), ("mine", 12)):
        arrays = {"class_names": np.array(["a", "b", "c"])}
        for split, n in (("train", 24), ("test", 12)):
            labels = np.arange(n) % 3
            noise = rng.integers(0, 60, (n, size, size, 3))
            arrays[f"{split}_images"] = (noise + 60 * labels[:, None, None, None]).astype(np.uint8)
            arrays[f"{split}_labels"] = labels
        np.savez(tmp_path / f"{name}.npz", **arrays)
    words = [str(run[0]), f"--sources=flowers,arrays:{tmp_path / 'mine.npz'}", "--seeds=2", "--finetune"]
    words += [f"--data_dir={tmp_path}", "--finetune_epochs=1", "--finetune_rate=0.01", "--layer_decay=1"]
    monkeypatch.setattr(finetune, "LEAST_STEPS", 12)
    calls = []

    def stopped(config, workdir, **named):
        def stop(step, state, metrics):
            if len(calls) == 2 and step == 6:
                os.kill(os.getpid(), signal.SIGINT)

        calls.append(workdir)
        return train(config, workdir, callbacks=[stop], **named)

    monkeypatch.setattr(finetune, "train", stopped)
    assert transfer([*words, f"--out={tmp_path / 'out'}"]) == 0
    before = json.loads((tmp_path / "out" / "results.json").read_text())["cells"]
    assert ["finetune" in cell["metrics"] for cell in before] == [True, False, False, False]
    assert not (tmp_path / "out" / "report.html").exists()
    assert transfer([*words, f"--out={tmp_path / 'out'}"]) == 0
    assert calls[1] == calls[2] and len(calls) == 5  # Gone on with, and nothing twice.
    records = [json.loads(line) for line in (calls[1] / "metrics.jsonl").read_text().splitlines()]
    assert max(r["step"] for r in records) == 12 and not (calls[1] / "checkpoints").exists()
    cells = json.loads((tmp_path / "out" / "results.json").read_text())["cells"]
    assert transfer([*words, f"--out={tmp_path / 'again'}"]) == 0
    assert json.loads((tmp_path / "again" / "results.json").read_text())["cells"] == cells
    assert np.mean([cell["metrics"]["finetune"] for cell in cells]) > 0.6  # Brightness tells the classes.
    page = (tmp_path / "out" / "report.html").read_text()
    assert "fine-tuning %" in page and page.count("±") >= 8 and "layer decay 1" in page


@pytest.mark.slow
def test_fine_tuning_begins_with_the_run_s_encoder(run, tmp_path):
    loaded, source = load_run(run[0]), open_source("synthetic:24x8")
    config = finetune._config(loaded, source, "synthetic:24x8", finetune.Recipe(1, 0.01, 1.0), 0)
    finetune._begin(loaded, config, source, tmp_path)
    begun = load_run(tmp_path, config=config, images=source).state
    for name in ("params", "batch_stats"):
        pair = getattr(begun, name)["encoder"], getattr(loaded.state, name)["encoder"]
        jax.tree.map(np.testing.assert_array_equal, *pair)


def test_fine_tuning_slows_the_first_layers_and_checks_the_classes(tiny_config):
    source = open_source("synthetic:24x8")
    begun = types.SimpleNamespace(config=tiny_config)
    config = finetune._config(begun, source, "synthetic:24x8", finetune.Recipe(1, 0.01, 0.5), 0)
    setup = set_up(config, source=source, devices=jax.devices()[:8])
    factors = build.learning_rate_factors(config)(setup.abstract.params)
    (stem, *_), (layer, *_) = (
        set(jax.tree.leaves([tree for name, tree in factors["encoder"]["trunk"].items() if name.startswith(part)]))
        for part in ("stem_conv", "layer2")
    )
    assert stem < layer < 1 and set(jax.tree.leaves(factors["classifier"])) == {1.0}
    config.objective.classification.classes += 1
    with pytest.raises(UserError, match=r"objective\.classification\.classes \d+: the images .* have \d+ classes"):
        set_up(config, source=source)
    unlabelled = ArraySplit(source.train.images, np.full(len(source.train), -1, np.int32), ())
    with pytest.raises(UserError, match=r"objective\.name 'classification': learns from labels"):
        set_up(config, source=Source("x", unlabelled, unlabelled))


def test_a_diverged_run_s_evaluation_is_one_sentence(run):
    loaded = load_run(run[0])
    evaluator = Evaluator(loaded.config, loaded.model, loaded.source, loaded.mesh)
    diverged = loaded.state.replace(params=jax.tree.map(lambda x: x * np.nan, loaded.state.params))
    for evaluation_of in (evaluator.features, lambda state: evaluator.at_the_end(state, loaded.init, epoch=1)):
        with pytest.raises(UserError, match=r"step 12: the encoder's features are not finite.*learning_rate"):
            evaluation_of(diverged)


def test_the_flow_is_that_of_the_epoch_that_training_ended_in(tmp_path):
    config = tiny.quick("hamjepa")
    config.train.update(steps=2, epochs=30)
    config.predictor.residual_warmup_epochs, config.optimizer.warmup = 4, "0 steps"
    config.evaluate.update(every="", ks=(1,), flow=1)
    config.evaluate.probe.epochs = 0
    at_its_end = train(config, tmp_path / "run")["trained"]
    again = evaluate(config, tmp_path / "run")["trained"]
    assert main([str(tmp_path / "run"), f"--out={tmp_path / 'out'}"]) == 0
    (by_command,) = (checkpoint["trained"] for checkpoint in metrics_of(tmp_path / "out")["checkpoints"])
    of_flow = {key for key in by_command if key.startswith("flow/")}
    assert of_flow and all(by_command[key] == at_its_end[key] == again[key] for key in of_flow)


@pytest.mark.slow
def test_raw_pixels_of_large_images_are_reduced_and_named_so(tiny_config):
    tiny_config.data.source, tiny_config.data.image_size = "synthetic:20x48", 48
    tiny_config.evaluate.references = ("pixels",)
    source = open_source(tiny_config.data.source)
    evaluator = Evaluator(tiny_config, build.build_model(tiny_config), source, make_mesh())
    z = [np.asarray(jax.random.normal(jax.random.key(0), (len(s), 8))) for s in (source.train, source.test)]
    results, _ = evaluator.at_the_end(None, None, epoch=1, features=z)
    assert set(results) == {"trained", "pixels_32px"}
    # 3 × 32 × 32 values between −2 and 2 (mean 0.5, deviation 0.25).
    assert results["pixels_32px"]["z/max_norm"] < 2 * np.sqrt(3 * 32 * 32)
