"""Whole runs through the command line and through train(): results, resume, interruption, refusal."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from hamjepa_jax import evaluate as evaluate_lib
from hamjepa_jax import main
from hamjepa_jax import train as train_lib
from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives import Objective
from hamjepa_jax.run.restore import open_checkpoints
from hamjepa_jax.run.workdir import FINISHED_FILE, saved_config
from hamjepa_jax.train import train

ROOT = pathlib.Path(__file__).parent.parent
TOTAL = 12  # steps of the tiny run


@pytest.fixture
def config():
    """HamJEPA's of another encoder: nothing here is about the ResNet."""
    return tiny.quick("hamjepa")


def command(workdir, *options, config="tests/tiny.py:quick"):
    chosen = [f"--config={config}"] if config else []
    return [sys.executable, "-m", "hamjepa_jax.main", *chosen, f"--workdir={workdir}", *options]


def run(workdir, *options, **settings):
    return subprocess.run(
        command(workdir, *options, **settings),
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
    )


def final_state(config, workdir):
    """Every array of the newest checkpoint."""
    checkpoints = open_checkpoints(config, workdir)
    step = checkpoints.steps()[-1]
    state = checkpoints.restore(None, step)
    checkpoints.close()
    return step, jax.device_get(state)


def records(workdir):
    """The log without what depends on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("perf/")} for line in lines]


def assert_same_run(config, one, other):
    (step_one, state_one), (step_other, state_other) = final_state(config, one), final_state(config, other)
    assert step_one == step_other == TOTAL
    jax.tree.map(np.testing.assert_array_equal, state_one, state_other)
    assert records(one) == records(other)
    assert json.loads((one / "metrics.json").read_text()) == json.loads((other / "metrics.json").read_text())


class Interrupted(Exception):
    pass


def interrupt_at(step):
    def callback(at, state, metrics):
        if at == step:
            raise Interrupted

    return callback


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """(workdir, result) of a whole run, and what was seen on the way."""
    workdir, seen = tmp_path_factory.mktemp("uninterrupted"), {"extracted": []}
    set_up, features = train_lib.set_up, evaluate_lib.Evaluator.features

    def watched_set_up(*arguments, **options):
        setup = set_up(*arguments, **options)
        open_inputs = setup.inputs.open

        def watched_inputs():
            opened = open_inputs()

            def batches(first_step):
                for batch in opened.batches(first_step):
                    seen.setdefault("first batch", weakref.ref(batch))
                    yield batch
                    del batch

            return opened._replace(batches=batches)

        setup.inputs.open = watched_inputs
        return setup

    def watched_features(self, state):
        seen["extracted"].append(int(state.step))
        return features(self, state)

    def callback(step, state, metrics):
        if step == 4:
            seen["first batch is kept"] = seen["first batch"]() is not None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_lib, "set_up", watched_set_up)
        patch.setattr(evaluate_lib.Evaluator, "features", watched_features)
        result = train(tiny.quick("hamjepa"), workdir, callbacks=[callback])
    return (workdir, result), seen


@pytest.fixture(scope="module")
def uninterrupted(observed):
    return observed[0]


@pytest.mark.slow
def test_a_run_extracts_states_once_and_keeps_no_batch(observed):
    _, seen = observed
    assert seen["extracted"] == [6, 12]
    assert not seen["first batch is kept"]


def test_a_run_leaves_what_a_person_can_read(uninterrupted):
    workdir, result = uninterrupted
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["step"] == result["step"] == TOTAL
    for readout in ("q", "p", "qp"):
        assert 0 <= metrics["trained"][f"{readout}/knn_top1_k5_cosine_majority"] <= 1
        assert 0 <= metrics["trained"][f"{readout}/probe_top1_adamw_lr0.001_wd1e-06_bs256_ep1"] <= 1
    logged = records(workdir)
    assert [r["step"] for r in logged if "train/total" in r] == list(range(1, TOTAL + 1))
    assert [r["step"] for r in logged if "eval/q/knn_top1_k5_cosine_majority" in r] == [6, 12]
    plots = [f"plots/{name}.png" for name in ("learning_curve", "readouts", "neighbours")]
    for file in ("config.json", "run.json", "table.txt", *plots):
        assert (workdir / file).stat().st_size > 0
    assert (workdir / FINISHED_FILE).exists()
    environment = json.loads((workdir / "run.json").read_text())
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["devices"]


def test_latest_and_best_checkpoints_are_kept(uninterrupted, config):
    workdir, _ = uninterrupted
    checkpoints = open_checkpoints(config, workdir)
    best = checkpoints.best_step()
    assert checkpoints.steps() == sorted({9, 12, best})
    assert best in (6, 12)
    checkpoints.close()


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 8])
def test_a_run_that_broke_off_goes_on_bit_for_bit(step, uninterrupted, config, tmp_path):
    with pytest.raises(Interrupted):
        train(config, tmp_path, callbacks=[interrupt_at(step)])
    if step == 8:  # Looking at what is there finishes nothing.
        evaluate_lib.evaluate(saved_config(tmp_path), tmp_path)
        assert (tmp_path / "metrics.json").exists() and not (tmp_path / FINISHED_FILE).exists()
    train(config, tmp_path)
    assert (tmp_path / FINISHED_FILE).exists()
    assert_same_run(config, uninterrupted[0], tmp_path)


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_named_and_stepped_over(uninterrupted, config, tmp_path, caplog):
    with pytest.raises(Interrupted):
        train(config, tmp_path, callbacks=[interrupt_at(8)])
    newest = tmp_path / "checkpoints" / "6"
    with pytest.raises(Interrupted):  # Wait for the save, then damage it: cut every file of arrays short.
        train(config, tmp_path, callbacks=[interrupt_at(7)])
    for file in newest.rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with caplog.at_level("WARNING", logger="hamjepa_jax"):
        train(config, tmp_path)
    assert f"{newest} is damaged" in caplog.text
    assert_same_run(config, uninterrupted[0], tmp_path)


def test_a_finished_run_is_evaluated_again_to_the_same_numbers(uninterrupted):
    workdir, result = uninterrupted
    evaluated = evaluate_lib.evaluate(saved_config(workdir), workdir)
    assert evaluated == result


def test_a_workdir_of_another_run_is_refused_with_the_differing_fields(uninterrupted, config):
    workdir, _ = uninterrupted
    config.optimizer.learning_rate = 0.5
    config.log.every = "7 steps"  # free to change
    with pytest.raises(UserError, match=r"optimizer\.learning_rate: 0\.0005 → 0\.5") as error:
        train(config, workdir)
    assert "log.every" not in str(error.value)


def test_other_images_are_refused(uninterrupted, config):
    config.data.source = "synthetic:106x8"
    with pytest.raises(UserError, match=r"data\.source"):
        train(config, uninterrupted[0])


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(quick_config, tmp_path):
    quick_config.optimizer.learning_rate = 1e30
    quick_config.optimizer.clip_norm = None
    with pytest.raises(UserError, match=r"step \d+: .*total.* not finite; .*optimizer\.learning_rate") as error:
        train(quick_config, tmp_path)
    (diagnostics,) = tmp_path.glob("non_finite_step_*.json")
    assert str(diagnostics) in str(error.value)
    assert json.loads(diagnostics.read_text())["total"] in ("nan", "inf")


def test_an_objective_of_one_s_own_needs_no_total_and_is_asked_for_again(quick_config, tmp_path):
    quick_config.train.steps, quick_config.evaluate.every, quick_config.evaluate.probe.epochs = 4, "", 0

    def own(config, predictor):
        return Objective(lambda count: (), 1, lambda params, z, draw, epoch: (jnp.square(z - 1).mean(), {}))

    with pytest.raises(Interrupted):
        train(quick_config, tmp_path, objective=own, callbacks=[interrupt_at(4)])
    assert all(np.isfinite(record["train/total"]) for record in records(tmp_path))
    with pytest.raises(UserError, match=r"checkpoints/3: is of a run with another objective.* objective="):
        train(quick_config, tmp_path)
    assert train(quick_config, tmp_path, objective=own)["step"] == 4


@pytest.mark.slow
def test_sigkill_and_the_same_command_again(uninterrupted, config, tmp_path):
    process = subprocess.Popen(command(tmp_path), cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step 8/"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "metrics.json").exists()
    again = run(tmp_path)
    assert again.returncode == 0, again.stderr
    assert "going on from the checkpoint of step" in again.stdout
    assert_same_run(config, uninterrupted[0], tmp_path)


def test_a_signal_ends_a_run_after_a_save(config, tmp_path, caplog):
    def end(step, state, metrics):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with caplog.at_level("INFO", logger="hamjepa_jax"):
        assert train(config, tmp_path, callbacks=[end]) is None
    # The callback of step 2 comes after the look for a signal, so one more step is taken.
    assert f"SIGTERM: saved step 3 of {TOTAL}; the same command goes on from there" in caplog.text
    assert final_state(config, tmp_path)[0] == 3


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_zero(uninterrupted, config, tmp_path):
    process = subprocess.Popen(command(tmp_path), cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step 4/"):
            break
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output = process.stdout.read()
    assert process.wait() == 0
    assert time.monotonic() - start < 30
    assert "SIGTERM: saved step" in output
    again = run(tmp_path)
    assert again.returncode == 0, again.stderr
    assert_same_run(config, uninterrupted[0], tmp_path)


@pytest.mark.slow
def test_mode_evaluate_needs_no_config(uninterrupted):
    workdir, _ = uninterrupted
    before = (workdir / "metrics.json").read_text()
    done = run(workdir, "--mode=evaluate", config=None)
    assert done.returncode == 0, done.stderr
    assert "kNN@5 %" in done.stdout  # The largest k that the run asks for.
    assert json.loads((workdir / "metrics.json").read_text()) == json.loads(before)


_SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "options, message",
    [
        (["--config.encoder.token_dim=3"], "encoder.token_dim 3"),
        (["--config.optimizer.lr=1"], r"--config\.optimizer\.lr: .*no such field"),
        (["--config.data.source=arrays:/nowhere.npz"], "/nowhere.npz"),
        (["--mode=evaluate"], "no checkpoint|holds no run"),
        pytest.param(["--config.optimiser.eps=1"], r"--config\.optimiser\.eps: .*no such field", marks=_SLOW),
        pytest.param(["--config.train.batch_size=many"], "batch_size", marks=_SLOW),
        pytest.param(["stray"], "stray", marks=_SLOW),
    ],
)
def test_mistakes_get_one_sentence_and_no_traceback(options, message, tmp_path):
    done = run(tmp_path / "run", *options)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and re.search(message, lines[0]), done.stderr


def test_missing_config_file_and_workdir_are_named(tmp_path):
    done = run(tmp_path, config="configs/none.py")
    assert done.returncode != 0 and "configs/none.py" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_quickstart_prints_its_table(tmp_path, caplog):
    short = ["--config.train.steps=4", "--config.optimizer.warmup=1 steps", "--config.evaluate.probe.epochs=2"]
    short += ["--config.train.batch_size=32"]
    few = "--config.data.source=shapes:300?test=50"
    config = f"--config={ROOT / 'configs' / 'quickstart.py'}"
    with caplog.at_level("INFO", logger="hamjepa_jax"):
        assert main.main([config, f"--workdir={tmp_path / 'quickstart'}", *short, few]) == 0
    printed = "\n".join(caplog.messages)
    table = (tmp_path / "quickstart" / "table.txt").read_text()
    assert table.strip() in printed
    for row in ("q ", "p ", "(q,p) ", "untrained q", "untrained p", "untrained (q,p)", "raw pixels"):
        assert any(line.startswith(row) for line in table.splitlines()), row
    for place in ("metrics.json", "plots", "metrics.jsonl", "tensorboard", "checkpoints"):
        assert str(tmp_path / "quickstart" / place) in printed
