"""The benchmark of the loop: as many steps as asked for, in a run's own loop, around a program without work."""

from hamjepa_jax.benchmark import loop
from hamjepa_jax.training.monitor import Watch


def test_every_step_is_timed_and_checked_as_in_a_run(quick_config, monkeypatch):
    pushed = []
    push = Watch.push
    monkeypatch.setattr(Watch, "push", lambda self, step, *rest: (pushed.append(step), push(self, step, *rest)))
    monkeypatch.setattr(loop, "WARM", 5)
    quick_config.train.steps_per_dispatch = 3  # Taken as 1: each step is timed.
    report = loop.benchmark_loop(quick_config, steps=20)
    assert pushed == list(range(1, 26))
    assert report.step.shape == report.call.shape == (19,)
    assert (report.call > 0).all() and (report.call < report.step).all()
    assert f"with {report.arrays} arrays" in loop.describe(report) and report.arrays > 30
