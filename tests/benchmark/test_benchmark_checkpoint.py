"""The benchmark of checkpoints: its sizes are the state's, its times those of what happened."""

import jax

from hamjepa_jax import build
from hamjepa_jax.benchmark.checkpoint import benchmark_checkpoint, describe


def test_sizes_and_times_fit_together(quick_config, tmp_path):
    quick_config.encoder.token_hw, quick_config.encoder.token_dim = 1, 4096  # As large as what a checkpoint adds.
    quick_config.objective.lejepa.num_directions = 1
    report = benchmark_checkpoint(quick_config, rounds=2, folder=tmp_path)
    model = build.build_model(quick_config)
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    weights = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params))  # Adam keeps two more of each number.
    assert weights > 80_000 and 3 < report.state / weights < 4
    assert 0.5 < report.on_disk / report.state < 2
    assert 0 < report.stall < report.written
    assert report.restored > 0 and report.step > 0
    assert (report.step_while_saving is None) == (report.steps_while_saving == 0)
    assert list(tmp_path.iterdir()) == []
    assert f"state {report.state / 1e6:,.1f} MB" in describe(report)
