"""`evaluate --trajectories` on a tiny run on drawn clips."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tiny

from hamjepa_jax import build, report
from hamjepa_jax.evaluate import pictures, pictures_of, trajectories
from hamjepa_jax.evaluate.__main__ import main
from hamjepa_jax.interop.workdirs import fresh_state, write_workdir
from hamjepa_jax.run.restore import load_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = tiny.quick("hamjepa")
    config.data.source = "trajectories:spring?train=64&test=20&frames=6&test_frames=14"
    config.data.image_size = 32
    config.views.stack, config.views.max_gap = 2, 2
    config.encoder.token_hw, config.encoder.token_dim = 1, 4
    config.evaluate.every, config.evaluate.probe.epochs = "", 0
    folder = tmp_path_factory.mktemp("runs") / "spring"
    write_workdir(folder, config, fresh_state(config), {"file": "none"})  # Untrained weights have all measures too.
    return folder


def test_states_rollouts_and_energy_are_measured(workdir, tmp_path):
    assert main([str(workdir), "--trajectories", "--pictures", f"--out={tmp_path}"]) == 0
    content = json.loads((tmp_path / "trajectories.json").read_text())
    assert {"command", "protocol", "fingerprint", "seed"} <= set(content)
    (found,) = content["checkpoints"]
    assert set(found["states"]) == {"q", "p", "qp"} and len(found["states"]["q"]["quadratic"]) == 2
    assert found["frames"] == 12 and found["dt"] == 0.2  # 13 stacks of 14 frames.
    for way in ("forward", "backward"):
        assert len(found[way]["error"]) == len(found[way]["retrieved"]) == 13
        assert found[way]["error"][0] == 0 and found[way]["retrieved"][0] == 1
    assert 0 < found["motion"] <= 1
    assert 0 <= found["symplecticity"]["defect"] <= 1 and np.isfinite(list(found["energy"].values())).all()
    text = (tmp_path / "trajectories.txt").read_text()
    assert "R² of position and momentum from q: linear" in text and "valid for" in text
    pictures = next(tmp_path.glob("step_*/pictures"))
    assert {"portrait.png", "rollouts.png", "rollout.gif", "report.html"} <= {p.name for p in pictures.iterdir()}


def test_encodings_come_back_as_clips_in_their_order(workdir, monkeypatch):
    """Whatever the batch: each state is that of its own clip and moment."""
    run = load_run(workdir)
    monkeypatch.setattr(trajectories, "FITTED_CLIPS", 15)
    run.config.evaluate.batch_size = 32  # 75 stacks of 15 training clips, 195 of 15 test clips.
    train, test = trajectories.encoded_clips(run.config, run.model, run.state, run.source, run.mesh)
    assert train.shape == (5, 15, 4) and test.shape == (13, 15, 4)
    transform = build.eval_transform(run.config)
    for z, split, t, n in ((train, run.source.train, 4, 14), (test, run.source.test, 2, 1)):
        stack = transform(split.images[n : n + 1, t : t + 2])
        want = run.model.features(run.state.params, run.state.batch_stats, stack)
        np.testing.assert_allclose(z[t, n], want[0], rtol=1e-4, atol=1e-5)


def test_other_data_are_refused(workdir, tmp_path, capsys):
    options = ["--trajectories", f"--out={tmp_path}", "--source"]
    assert main([str(workdir), *options, "synthetic:20x32"]) == 2
    assert "views.stack 2: data.source 'synthetic:20x32' has images and no clips" in capsys.readouterr().err
    assert main([str(workdir), "--pictures", f"--out={tmp_path}"]) == 2
    assert "has clips, whose pictures show motion; give --trajectories too" in capsys.readouterr().err
    clips = np.zeros((4, 3, 32, 32, 3), np.uint8)
    np.savez(tmp_path / "x.npz", train_clips=clips, test_clips=clips)
    assert main([str(workdir), *options, f"arrays:{tmp_path}/x.npz"]) == 2
    assert "--trajectories: data.source 'arrays:" in capsys.readouterr().err


def test_a_run_is_measured_anew_when_its_weights_or_the_states_are_others(workdir, tmp_path, monkeypatch):
    """And is not when nothing has changed."""
    run, own, measured = load_run(workdir), tmp_path / "run", []
    shutil.copytree(workdir, own)
    (own / "metrics.json").write_text(json.dumps({"step": int(run.state.step), "trained": {}}))
    monkeypatch.setattr(trajectories, "load_run", lambda *_, **__: run)
    monkeypatch.setattr(trajectories, "measure_trajectories", lambda *_, **__: measured.append(1) or {})

    def times(source):
        trajectories.measured_trajectories(run.config, own, source)
        return len(measured)

    assert times(run.source) == times(run.source) == 1
    # The frames, and so the fingerprint, are the same.
    changed = [dataclasses.replace(run.source.test, **{name: 2 * getattr(run.source.test, name)}) for name in
               ("states", "energies", "dt")]  # fmt: skip
    for number, test in enumerate(changed, start=2):
        source = dataclasses.replace(run.source, test=test)
        assert source.fingerprint() == run.source.fingerprint() and times(source) == times(source) == number
    assert times(run.source) == 5
    (saved,) = own.glob("checkpoints/*/checksum/metadata")  # Other weights of the same step.
    saved.write_text(json.dumps(json.loads(saved.read_text()) | {"checksum": 7}))
    assert times(run.source) == times(run.source) == 6


def test_pictures_of_a_run_on_clips_are_portraits(workdir, tmp_path, monkeypatch):
    run, drawn = load_run(workdir), [report.Figure(tmp_path / "portrait.png", "Orbits.")]
    (tmp_path / "metrics.json").write_text(json.dumps({"step": int(run.state.step), "trained": {}}))
    monkeypatch.setattr(pictures, "load_run", lambda *_, **__: run)
    monkeypatch.setattr(pictures, "measured_trajectories", lambda *_: {"forward": {}})
    monkeypatch.setattr(pictures, "draw_portraits", lambda *_, **__: drawn)
    assert pictures_of(tmp_path, run.source) == drawn
    assert json.loads((tmp_path / "pictures" / "captions.json").read_text())["captions"] == {
        "portrait.png": "Orbits."
    }
    unknown = dataclasses.replace(run.source, test=dataclasses.replace(run.source.test, states=None))
    assert pictures_of(tmp_path, unknown) != []  # They are there.
    shutil.rmtree(tmp_path / "pictures")
    assert pictures_of(tmp_path, unknown) == [] and not (tmp_path / "pictures").exists()
