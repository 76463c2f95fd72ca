"""Several processes make the run that one makes: numbers, checkpoints, signals, losses, refusals."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import tiny
from processes import finish, start, wait_for_checkpoint

from hamjepa_jax.run.workdir import claim
from hamjepa_jax.train import train

pytestmark = pytest.mark.slow
# Learning slowly enough for rounding not to grow, and wide enough for "fsdp" to split some of it.
SLOW = "--config.optimizer.learning_rate=2e-5"
WIDE = ("--config.encoder.width=32", SLOW)
QUICK = "--config=tests/tiny.py:quick"
TOTAL = 12


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_numbers(workdir, reference):
    """Losses within 1e-5 of the reference's, accuracies equal."""
    logged, expected = records(workdir), records(reference)
    assert [r["step"] for r in logged] == [r["step"] for r in expected]
    for ours, theirs in zip(logged, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            if name in ("train/total", "train/pred"):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-5), (ours["step"], name)
            if name == "train/grad_norm":  # It jumps where an activation changes sign.
                assert ours[name] == pytest.approx(theirs[name], rel=2e-3), (ours["step"], name)
            if "knn" in name:
                assert ours[name] == theirs[name], (ours["step"], name)
    ours, theirs = (json.loads((w / "metrics.json").read_text())["trained"] for w in (workdir, reference))
    assert {k: v for k, v in ours.items() if "knn" in k} == {k: v for k, v in theirs.items() if "knn" in k}


def config():
    made = tiny.get_config()
    made.encoder.width, made.optimizer.learning_rate = 32, 2e-5
    return made


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process on eight devices."""
    workdir = tmp_path_factory.mktemp("alone")
    train(config(), workdir)
    return workdir


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of two processes of which the second got SIGTERM after the checkpoint of step 3."""
    workdir = tmp_path_factory.mktemp("stopped")
    started = start(2, workdir, *WIDE)
    wait_for_checkpoint(workdir, 3, started)
    started[1].send_signal(signal.SIGTERM)
    return workdir, finish(started)


def test_a_signal_to_one_process_stops_all_after_one_save(stopped):
    workdir, ((first, said), (second, silent)) = stopped
    assert (first, second) == (0, 0)
    step = records(workdir)[-1]["step"]
    assert 3 < step < TOTAL
    assert said.count(f"saved step {step} of {TOTAL}; the same command goes on from there") == 1
    assert sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())[-1] == step
    assert "2 process(es), 2 × cpu (data 2 × fsdp 1): a batch of 16 is 8 images on each device" in said
    assert "step 1/12" in said and "step" not in silent


def test_what_two_saved_one_process_goes_on_with(stopped, alone, tmp_path, caplog):
    shutil.copytree(stopped[0], tmp_path / "run")
    with caplog.at_level("INFO", logger="hamjepa_jax"):
        train(config(), tmp_path / "run")
    assert "saved by processes 2 × data 2 × fsdp 1, is put on processes 1 × data 8 × fsdp 1" in caplog.text
    assert_same_numbers(tmp_path / "run", alone)


def test_what_two_saved_four_go_on_with_their_parameters_split(stopped, alone, tmp_path):
    shutil.copytree(stopped[0], tmp_path / "run")
    ended = finish(start(4, tmp_path / "run", *WIDE, "--config.mesh.fsdp=2"))
    assert [status for status, _ in ended] == [0] * 4, ended
    assert "saved by processes 2 × data 2 × fsdp 1, is put on processes 4 × data 2 × fsdp 2" in ended[0][1]
    assert_same_numbers(tmp_path / "run", alone)


def test_processes_that_share_parameters_evaluate_the_flow_and_the_online_probe(tmp_path):
    """Each holds a half of the potential's kernels, and of the whole state's classifier of 128 classes."""
    images, labels = np.zeros((128, 8, 8, 3), np.uint8), np.arange(128)
    images[..., 0] = 2 * labels[:, None, None]
    np.savez(
        tmp_path / "many.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels,
        class_names=labels.astype(str),
    )  # fmt: skip
    options = (
        QUICK, f"--config.data.source=arrays:{tmp_path}/many.npz",
        "--config.encoder.token_dim=8", "--config.predictor.hidden=256", "--config.mesh.fsdp=2",
        "--config.train.steps=3", "--config.evaluate.flow=1", "--config.evaluate.online_probe.enabled",
    )  # fmt: skip
    ended = finish(start(2, tmp_path / "run", *options))
    assert [status for status, _ in ended] == [0, 0], ended
    assert "flow/max_symplectic_defect" in json.loads((tmp_path / "run/metrics.json").read_text())["trained"]
    assert 0 <= records(tmp_path / "run")[-1]["eval/qp/online_probe_top1"] <= 1


def test_the_loss_of_a_process_ends_the_others_and_nothing_else_is_lost(tmp_path):
    streamed = tiny.quick("hamjepa")
    streamed.data.store, streamed.optimizer.learning_rate = "stream", 2e-5
    train(streamed, tmp_path / "alone")
    options = (QUICK, SLOW, "--config.data.store=stream")
    started = start(2, tmp_path / "run", *options)
    wait_for_checkpoint(tmp_path / "run", 3, started)
    started[1].kill()
    (first, said), (second, _) = finish(started)
    assert first == 1 and second == -signal.SIGKILL
    assert "another process of the run has stopped" in said and "goes on from the last checkpoint" in said
    assert "Traceback" not in said
    ended = finish(start(2, tmp_path / "run", *options))
    assert [status for status, _ in ended] == [0, 0], ended
    assert_same_numbers(tmp_path / "run", tmp_path / "alone")


def test_the_loss_of_the_first_process_ends_the_others(tmp_path):
    started = start(2, tmp_path, QUICK)
    wait_for_checkpoint(tmp_path, 3, started)
    started[0].kill()
    (_, _), (second, said) = finish(started)
    assert second != 0
    libraries = tmp_path / "logs" / "libraries_1.log"
    assert "another process of the run has stopped" in said or "another task died" in libraries.read_text()
    assert said.startswith(f"messages of C++ libraries, also on a process that was lost: {libraries}")
    assert "[Gloo]" not in said and "stack trace" not in said


def test_a_mistake_that_one_process_meets_ends_all(tmp_path):
    ended = finish(start(2, tmp_path / "run", own=[(), ("--config.data.source=arrays:missing.npz",)]))
    assert [status for status, _ in ended] == [2, 2], ended
    assert "error: process 1: data.source" in ended[0][1]
    assert all("missing.npz" in said and "Traceback" not in said for _, said in ended)


def test_a_tracker_that_fails_on_the_first_process_ends_all(tmp_path, monkeypatch):
    (tmp_path / "mlflow.py").write_text("raise ImportError('no server')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    ended = finish(start(2, tmp_path / "run", QUICK, "--config.log.trackers=mlflow"))
    assert [status for status, _ in ended] == [2, 2], ended
    assert all("log.trackers 'mlflow': it could not be opened (no server)" in said for _, said in ended)


def test_a_workdir_in_use_is_refused_by_all(tmp_path):
    with claim(tmp_path, tiny.get_config(), ""):
        ended = finish(start(2, tmp_path))
    assert [status for status, _ in ended] == [2, 2], ended
    assert all("another run is using it" in said for _, said in ended)
