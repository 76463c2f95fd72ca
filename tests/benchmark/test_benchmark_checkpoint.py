"""The benchmark of checkpoints: its sizes are the state's, its times those of what happened."""

from hamjepa_jax.benchmark.checkpoint import benchmark_checkpoint, describe


def test_sizes_and_times_fit_together(tiny_config, tmp_path):
    tiny_config.objective.name, tiny_config.predictor.kind = "lejepa", "identity"
    tiny_config.encoder.width, tiny_config.views.jitter_prob, tiny_config.views.blur_prob = 16, 0.0, 0.0
    report = benchmark_checkpoint(tiny_config, rounds=2, folder=tmp_path)
    encoder = 4 * 46_000  # Bytes of a trunk of width 16 up to layer 2; Adam keeps two more of each number.
    assert 0.5 < report.state / (3 * encoder) < 2
    assert 0.5 < report.on_disk / report.state < 2
    assert 0 < report.stall < report.written
    assert report.restored > 0 and report.step > 0
    assert (report.step_while_saving is None) == (report.steps_while_saving == 0)
    assert list(tmp_path.iterdir()) == []
    assert f"state {report.state / 1e6:,.1f} MB" in describe(report)
