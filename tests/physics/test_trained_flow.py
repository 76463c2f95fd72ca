"""`python -m hamjepa_jax.physics --workdir`: the diagnostics of a run's flow at states of its test images."""

import json

import jax
import numpy as np
import pytest
import tiny

from hamjepa_jax import build
from hamjepa_jax.errors import UserError
from hamjepa_jax.physics.__main__ import main
from hamjepa_jax.run import workdir as workdir_lib
from hamjepa_jax.run.restore import heldout_states, load_run, open_checkpoints, trained_flow
from hamjepa_jax.training.mesh import make_mesh, replicated


def save_untrained(workdir, step, **predictor):
    """A workdir as a run leaves it, with the weights it begins with, said to be of some step."""
    config = tiny.quick("hamjepa")
    config.encoder.token_hw = 2  # 2×2 tokens: small Jacobians
    config.predictor.update(predictor)
    with workdir_lib.claim(workdir, config, fingerprint=""):
        pass
    mesh = make_mesh()
    training = build.build_training(config, build.build_model(config), 96, mesh)
    init = jax.jit(lambda: training.init(build.init_key(config)), out_shardings=replicated(mesh))
    checkpoints = open_checkpoints(config, workdir, read_only=False)
    checkpoints.save(step, init().replace(step=np.int32(step)), {})
    checkpoints.close()
    return workdir


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    flow = save_untrained(tmp_path_factory.mktemp("flow"), 9, num_steps=3, horizon=((1, 1), (2, 3)))
    return flow, save_untrained(tmp_path_factory.mktemp("mlp"), 9, kind="mlp")


@pytest.mark.slow
def test_a_run_is_loaded_with_its_flow_and_states(workdirs):
    run = load_run(workdirs[0])
    assert int(run.state.step) == 9 and run.steps_per_epoch == 6 and run.config.predictor.num_steps == 3
    z = heldout_states(run, 5)
    assert z.shape == (5, 16)
    flow, energy = trained_flow(run)
    # Step 9 is in the second epoch: the whole horizon and the whole residual scale.
    want = run.model.predictor.flow(jax.device_get(run.state.params["predictor"]), z, 1, 0.02)
    np.testing.assert_allclose(flow(z, 1), want, rtol=1e-6)
    assert energy(z).shape == (5,)


def test_figures_of_a_run_beside_its_ablation(workdirs, capsys):
    flow, mlp = workdirs
    assert main(["--workdir", str(flow), "--comparison", str(mlp), "--states", "8", "--jacobians", "2"]) == 0
    numbers = json.loads((flow / "physics" / "numbers.json").read_text())
    assert numbers["learned flow/mean_abs_log_abs_det"] < 1e-5 < numbers["comparison (MLP)/mean_abs_log_abs_det"]
    assert len(list((flow / "physics").glob("learned_*.png"))) == 4
    assert "step 9" in capsys.readouterr().out


def test_what_cannot_be_drawn_is_one_sentence(workdirs, tmp_path, capsys):
    for argv, message in {
        ("--workdir", str(tmp_path / "none")): "holds no run",
        ("--workdir", str(workdirs[1])): "has no energy to follow",
        ("--workdir", str(workdirs[0]), "--step", "4"): "checkpoint 4",
    }.items():
        assert main(list(argv)) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    for argv in ([], ["--out", str(tmp_path), "--comparison", "x"], ["--workdir", "x", "--states", "0"]):
        with pytest.raises(SystemExit):
            main(argv)


def test_a_run_without_a_flow_is_refused(workdirs):
    run = load_run(workdirs[0])
    config = run.config.copy_and_resolve_references()
    config.objective.name = "lejepa"
    with pytest.raises(UserError, match=r"'lejepa'.*no flow"):
        trained_flow(run._replace(config=config))
