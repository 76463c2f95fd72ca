"""Hooks say when they are due; several seeds at once are watched, saved and called back as single runs are."""

import json
import shutil
import types

import pytest
import tiny

from hamjepa_jax.data import open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.run import hooks as hooks_lib
from hamjepa_jax.run.hooks import Moment
from hamjepa_jax.run.seeds import Alone
from hamjepa_jax.train import train_seeds
from hamjepa_jax.training import monitor
from hamjepa_jax.training.checkpoint import Checkpoints

TRAINING = types.SimpleNamespace(total_steps=12, steps_per_epoch=6)


def at(step, **facts):
    return Moment(step, step / TRAINING.steps_per_epoch, state=None, metrics={}, **facts)


def hook(kind, config):
    """A hook of a run of this config, with nothing to work on."""
    outputs, members, clock = [types.SimpleNamespace(config=config)], Alone(None), monitor.Clock()
    finite = hooks_lib.Finite(outputs, members)
    shown = {"shown": None, "progress": None} if kind is hooks_lib.Log else {}
    return kind(outputs, members, finite, clock, TRAINING, **shown)


@pytest.mark.parametrize(
    "kind, block", [(hooks_lib.Log, "log"), (hooks_lib.Evaluate, "evaluate"), (hooks_lib.Save, "checkpoint")]
)
@pytest.mark.parametrize(
    "text, steps_per_dispatch, expected",
    [
        ("5 steps", 1, [5, 10, 12]),  # The last step too.
        ("1 epochs", 1, [6, 12]),
        ("25%", 1, [3, 6, 9, 12]),
        ("1 steps", 4, [4, 8, 12]),  # Not more often than the program returns.
        ("5 steps", 3, [6, 12]),  # At the first return after the fifth step, and the tenth.
        ("100 steps", 1, [12]),
    ],
)
def test_what_recurs_is_due_when_its_time_is_up(kind, block, text, steps_per_dispatch, expected, tiny_config):
    tiny_config[block].every, tiny_config.train.steps_per_dispatch = text, steps_per_dispatch
    recurring = hook(kind, tiny_config)
    assert [
        step for step in range(steps_per_dispatch, 13, steps_per_dispatch) if recurring.due(at(step))
    ] == expected


def test_an_evaluation_left_to_the_end_is_never_due_in_the_loop(tiny_config):
    tiny_config.evaluate.every = ""
    assert not any(hook(hooks_lib.Evaluate, tiny_config).due(at(step)) for step in range(1, 13))


def test_a_run_that_stops_is_saved_wherever_it_stands(tiny_config):
    save = hook(hooks_lib.Save, tiny_config)  # Every three steps.
    assert not save.due(at(4)) and save.due(at(4, stopping=True))


def test_watches_are_due_after_every_dispatch():
    for kind in (hooks_lib.Finite, hooks_lib.CheckSaves, hooks_lib.Stop, hooks_lib.EndTrace):
        assert issubclass(kind, hooks_lib.Always)
    assert hooks_lib.Always().due(at(1))


# -- Several seeds at once ------


def seeds(tmp_path, **changes):
    """(configs, workdirs, source) of two seeds with four steps, saved after the second and the last."""
    configs = []
    for seed in (0, 5):
        config = tiny.quick()
        config.seed, config.train.steps, config.checkpoint.every, config.evaluate.every = seed, 4, "2 steps", ""
        for name, value in changes.items():
            config[name].update(value)
        configs.append(config)
    return configs, [tmp_path / "first", tmp_path / "second"], open_source(configs[0].data.source)


def test_seeds_at_once_call_back_evaluate_and_save_each_for_itself(tmp_path):
    configs, workdirs, source = seeds(tmp_path, evaluate={"every": "2 steps"})
    seen = {seed: [] for seed in (0, 5)}
    callbacks = [
        [lambda step, state, metrics, seed=seed: seen[seed].append((step, int(state.step), metrics["total"]))]
        for seed in seen
    ]
    assert train_seeds(configs, workdirs, source, callbacks=callbacks)
    for workdir, calls in zip(workdirs, seen.values(), strict=True):
        records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        logged = [(r["step"], r["train/total"]) for r in records if "train/total" in r]
        assert [step for step, _, _ in calls] == [1, 2, 3, 4] == [own for _, own, _ in calls]
        assert logged == [(step, pytest.approx(total)) for step, _, total in calls]
        assert [r["step"] for r in records if "eval/q/knn_top1_k5_cosine_majority" in r] == [2, 4]
        with Checkpoints(
            workdir / "checkpoints", keep_latest=2, keep_best=1, best_metric="q/knn_top1_k5_cosine_majority",
            read_only=True,
        ) as checkpoints:  # fmt: skip
            assert checkpoints.steps() == [2, 4] and checkpoints.best_step() is not None
    assert seen[0][0][2] != seen[5][0][2]

    shutil.rmtree(workdirs[1] / "checkpoints" / "4")  # As of a run that was interrupted alone.
    with pytest.raises(UserError, match=r"--parallel_seeds: the runs stand at steps 4, 2; leave the flag out"):
        train_seeds(configs, workdirs, source)


@pytest.mark.slow
def test_seeds_at_once_are_warned_of_by_seed_and_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        monitor, "collapse_warnings", lambda values: {"q_pr": "q collapses"} if values["total"] > 0 else {}
    )
    configs, workdirs, source = seeds(tmp_path)
    for config in configs:
        config.evaluate.ks = (3,)  # Then no evaluation gives checkpoint.best_metric.
        config.evaluate.every = "4 steps"
    with caplog.at_level("INFO", logger="hamjepa_jax"):
        assert train_seeds(configs, workdirs, source)
    for seed in (0, 5):
        assert (
            caplog.text.count(f"step 1, seed {seed}: q collapses") == caplog.text.count(f"seed {seed}: q coll") == 1
        )
    assert caplog.text.count("checkpoint.best_metric 'q/knn_top1_k5_cosine_majority'") == 1


def test_seeds_at_once_notice_a_save_that_failed(tmp_path, monkeypatch):
    def check(self):
        if "second" in str(self.directory) and self.steps():
            raise UserError(f"{self.directory}: could not be saved")

    monkeypatch.setattr(Checkpoints, "check", check)
    configs, workdirs, source = seeds(tmp_path)
    with pytest.raises(UserError, match=r"second/checkpoints: could not be saved"):
        train_seeds(configs, workdirs, source)


@pytest.mark.slow
def test_seeds_at_once_stop_where_one_is_not_finite_and_save_nothing_of_it(tmp_path):
    configs, workdirs, source = seeds(tmp_path, optimizer={"learning_rate": 1e30, "clip_norm": None})
    with pytest.raises(UserError, match=r"not finite"):
        train_seeds(configs, workdirs, source)
    assert not any(path.name.isdigit() for workdir in workdirs for path in (workdir / "checkpoints").iterdir())


def test_seeds_at_once_are_checked_as_single_runs_are(tmp_path):
    configs, workdirs, source = seeds(tmp_path, train={"batch_size": 12})
    with pytest.raises(UserError, match=r"train\.batch_size 12: not divisible by 8 devices"):
        train_seeds(configs, workdirs, source)
    assert not any(workdir.exists() for workdir in workdirs)
