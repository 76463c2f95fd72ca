"""A wide objective of your own: its projector, teacher, parameters and carried state are saved and gone on with."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from hamjepa_jax import main
from hamjepa_jax.evaluate.__main__ import main as evaluate
from hamjepa_jax.run.restore import open_checkpoints
from hamjepa_jax.run.setup import set_up
from hamjepa_jax.run.workdir import saved_config

HERE = pathlib.Path(__file__).parent
FIELDS = {
    "plugins": f"{HERE / 'toy_wide.py'},{HERE / 'one_conv.py'}",
    "objective.name": "toy_wide",
    "objective.toy_wide.momentum": "0.75",
    "predictor.kind": "identity",
    "encoder.trunk": "one_conv",
    "encoder.projector": "mlp",
    "encoder.projector_dim": "12",
    "encoder.projector_hidden": "16",
    "views.jitter_prob": "0",
    "views.blur_prob": "0",
    "train.steps": "2",
    "optimizer.warmup": "1 steps",
    "checkpoint.every": "1 steps",
    "evaluate.every": "",
    "evaluate.teacher": "True",
}


def states(workdir):
    """{step: the state} of the checkpoints."""
    config = saved_config(workdir)
    setup = set_up(config)
    with open_checkpoints(config, workdir) as checkpoints:
        return {step: jax.device_get(checkpoints.restore(setup.abstract, step)) for step in checkpoints.steps()}


@pytest.mark.slow
def test_a_wide_objective_is_one_file(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    fields = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    assert main.main([f"--config={HERE.parent / 'tiny.py'}", f"--workdir={whole}", *fields]) == 0
    found = states(whole)
    assert set(found) >= {1, 2}
    # Killed after its first step, the run goes on to the same bits.
    shutil.copytree(whole, halves)
    shutil.rmtree(halves / "checkpoints" / "2")
    assert main.main([f"--workdir={halves}"]) == 0
    again = states(halves)[2]
    jax.tree.map(np.testing.assert_array_equal, again, found[2])

    last = found[2]
    assert set(last.teacher["params"]) == {"encoder", "projector"}
    assert last.params["toy_wide"].shape == (12, 12) and np.abs(last.carried["mean"]).max() > 0
    for name, tree in last.teacher["params"].items():
        moved = jax.tree.map(lambda t, p: 0.75 * t + 0.25 * p, found[1].teacher["params"][name], last.params[name])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), tree, moved)

    assert evaluate([str(whole), f"--out={tmp_path / 'evaluation'}"]) == 0
    results = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["checkpoints"][0]
    assert results["step"] == 2 and any("knn_top1" in key for key in results["trained"])
    assert results["trained"] == json.loads((whole / "metrics.json").read_text())["trained"]
