"""Logs and watches of the loop: what is written, what survives a kill, what raises an alarm."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax.errors import UserError
from hamjepa_jax.training import monitor
from hamjepa_jax.training.writer import MetricsWriter

HEALTHY = {"total": 1.0, "grad_norm": 2.0, "q_mean_square": 1.0, "q_min_std": 0.3, "q_pr": 0.2, "q_eigmax": 0.1}


def steps_of(workdir):
    return [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_log_is_that_of_an_uninterrupted_run(tmp_path):
    writer = MetricsWriter(tmp_path, first_step=0)
    for step in (1, 2, 3):
        writer.write_scalars(step, {"train/total": 1.0})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/to')  # cut off by a kill
    writer = MetricsWriter(tmp_path, first_step=2)
    writer.write_scalars(3, {"train/total": float("nan")})
    writer.close()
    assert steps_of(tmp_path) == [1, 2, 3]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["train/total"] is None


def test_tensorboard_gets_the_scalars(tmp_path):
    writer = MetricsWriter(tmp_path, first_step=0, trackers=("tensorboard",))
    writer.write_scalars(1, {"train/total": 0.125})
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/total" in events.read_bytes()


def metrics_of(*totals):
    return {"total": jnp.asarray(totals), "grad_norm": jnp.ones(len(totals))}


def test_the_first_step_that_is_not_finite_is_named_with_its_diagnostics(tmp_path):
    watch = monitor.Watch(tmp_path)
    watch.push(4, metrics_of(1.0, 1.0))
    watch.push(6, metrics_of(math.nan, math.inf))  # not looked at before the next dispatch
    watch.last_saved = 4
    with pytest.raises(UserError, match=r"step 5: total not finite; the last good checkpoint is that of step 4"):
        watch.push(8, metrics_of(1.0, 1.0))
    assert json.loads((tmp_path / "non_finite_step_5.json").read_text())["total"] == "nan"


def test_the_newest_metrics_are_checked_when_asked_for(tmp_path):
    watch = monitor.Watch(tmp_path)
    watch.push(1, {"total": jnp.float32(1.0), "grad_norm": jnp.float32(3.0)})
    assert watch.latest() == {"total": 1.0, "grad_norm": 3.0}
    watch.push(2, {"total": jnp.float32(1.0), "grad_norm": jnp.float32(np.inf)})
    with pytest.raises(UserError, match="grad_norm not finite; no checkpoint was written yet"):
        watch.latest()


class Waits:
    """A metric that must not be fetched yet."""

    def __array__(self, *arguments, **options):
        raise AssertionError("fetched")


def test_a_step_waits_for_its_loss_and_gradient_norm_only(tmp_path):
    watch = monitor.Watch(tmp_path)
    finite = {"total": jnp.float32(1.0), "grad_norm": jnp.float32(3.0)}
    for step in (1, 2, 3):
        watch.push(step, finite | {"pred": Waits()})
    with pytest.raises(AssertionError, match="fetched"):
        watch.latest()
    watch.push(4, finite | {"pred": jnp.float32(2.0)})
    assert watch.latest() == watch.latest() == {"total": 1.0, "grad_norm": 3.0, "pred": 2.0}


@pytest.mark.parametrize(
    "name, value", [("q_mean_square", 1e-5), ("q_min_std", 1e-4), ("q_pr", 0.005), ("q_eigmax", 0.95)]
)
def test_collapse_is_called_out_by_its_sign(name, value):
    assert monitor.collapse_warnings(HEALTHY) == {}
    (warned,) = monitor.collapse_warnings(HEALTHY | {name: value}).items()
    assert warned[0] == name and name in warned[1]


def test_speed_leaves_pauses_out():
    clock = monitor.Clock()
    with clock.paused():
        import time

        time.sleep(0.2)
    clock.advance(10)
    assert clock.report(batch_size=4, steps_left=10)["perf/steps_per_s"] > 100
