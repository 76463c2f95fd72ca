"""--profile=start:steps: the trace holds the asked-for steps, and changes nothing of the run."""

import jax
import numpy as np
import pytest
import tiny
from jax.profiler import ProfileData

from hamjepa_jax.errors import UserError
from hamjepa_jax.run.profile import Profiler, Window, parse_window
from hamjepa_jax.train import train


def short_run(workdir, **options):
    """Four steps; the weights and metrics that were logged at each."""
    config, seen = tiny.quick(), []
    config.train.steps, config.evaluate.every, config.evaluate.probe.epochs = 4, "", 0

    def callback(step, state, metrics):
        seen.append((step, jax.device_get(state.params), metrics))

    train(config, workdir, callbacks=[callback], **options)
    return seen


def traced_steps(workdir):
    (file,) = (workdir / "profile").rglob("*.xplane.pb")
    events = [e for plane in ProfileData.from_file(str(file)).planes for line in plane.lines for e in line.events]
    return [dict(event.stats)["step_num"] for event in events if event.name == "train"]


@pytest.mark.slow
def test_the_asked_for_steps_are_traced_and_the_run_is_unchanged(tmp_path):
    plain = short_run(tmp_path / "plain")
    traced = short_run(tmp_path / "traced", profile=Window(2, 2))
    assert not (tmp_path / "plain" / "profile").exists()
    assert traced_steps(tmp_path / "traced") == [2, 3]
    jax.tree.map(np.testing.assert_array_equal, plain, traced)


def test_whole_dispatches_are_traced(tmp_path):
    profiler = Profiler(tmp_path, Window(4, 4), first_step=0, total=12, steps_per_dispatch=3)
    for taken in (0, 3, 6, 9):
        with profiler.step(taken):
            result = jax.numpy.ones(3) + taken
        profiler.taken(taken + 3, result)
    assert traced_steps(tmp_path) == [4, 7]  # two dispatches of three steps, by the first of each


def test_an_interrupted_window_is_written(tmp_path):
    profiler = Profiler(tmp_path, Window(5, 3), first_step=4, total=8, steps_per_dispatch=1)
    with profiler.step(4):
        jax.block_until_ready(jax.numpy.ones(3) + 1)
    profiler.close()
    assert traced_steps(tmp_path) == [5]
    profiler.close()  # nothing left to write


@pytest.mark.parametrize("text", ["", "5", "0:3", "3:0", "a:b", "1:2:3", "-1:2", "1.5:2"])
def test_other_forms_are_refused(text):
    with pytest.raises(UserError, match="START:STEPS"):
        parse_window(text)


@pytest.mark.parametrize(
    "window, first_step, left",
    [("4:2", 4, "5 to 12 are left"), ("12:2", 0, "1 to 12 are left"), ("13:1", 12, "none is left")],
)
def test_steps_that_are_not_to_come_are_refused(window, first_step, left, tmp_path):
    with pytest.raises(UserError, match=f"--profile {window}: .*{left}"):
        Profiler(tmp_path, parse_window(window), first_step=first_step, total=12, steps_per_dispatch=1)
    Profiler(tmp_path, parse_window("5:8"), first_step=4, total=12, steps_per_dispatch=1)
