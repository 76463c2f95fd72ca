"""`python -m hamjepa_jax.physics`: what it writes, and what it says when it cannot."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hamjepa_jax.physics import SYSTEMS, animations
from hamjepa_jax.physics.__main__ import main

STILLS = {
    "energy_drift_map", "return_error_map", "liouville", "symplectic_defect", "energy_drift", "covariance",
    "sliced_discrepancy", "projection_sketch",
}  # fmt: skip


@pytest.fixture(scope="module")
def pendulum_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("physics")
    assert main(["--out", str(out), "--no-animations"]) == 0
    return out / "pendulum"


def test_stills_are_written_with_captions_and_numbers(pendulum_folder):
    assert {p.stem for p in pendulum_folder.glob("*.png")} == STILLS
    assert {p.stem for p in pendulum_folder.glob("*.pdf")} == STILLS
    captions = (pendulum_folder / "captions.md").read_text()
    assert all(f"## {name}\n" in captions for name in STILLS)
    for name in STILLS:
        pixels = np.asarray(Image.open(pendulum_folder / f"{name}.png").convert("L"))
        assert min(pixels.shape) > 400 and pixels.std() > 10  # drawn, not blank


def test_numbers_tell_the_story(pendulum_folder):
    numbers = json.loads((pendulum_folder / "numbers.json").read_text())
    assert numbers["leapfrog/return_error_median"] < 1e-13 < 1 < numbers["euler/return_error_median"]
    assert abs(numbers["leapfrog/area_ratio"] - 1) < 1e-3 and numbers["euler/area_ratio"] > 6
    assert numbers["leapfrog/symplectic_defect_largest"] < 1e-15
    # The paper: 4.90 and 7.22 against 0.0137 and 0.0206, for a cloud it does not state; the orders must agree.
    assert 3 < numbers["euler/sliced_w1_mean"] < numbers["euler/sliced_w1_max"] < 15
    assert 0.005 < numbers["leapfrog/sliced_w1_mean"] < numbers["leapfrog/sliced_w1_max"] < 0.06


def test_animations_move(tmp_path, monkeypatch):
    monkeypatch.setattr(animations, "NUM_FRAMES", 4)
    captions = animations.write_animations(SYSTEMS["oscillator"], tmp_path)
    for name in captions:
        with Image.open(tmp_path / f"{name}.gif") as gif:
            assert gif.n_frames == 4
            first = np.asarray(gif.convert("L"), float)
            gif.seek(3)
            assert np.abs(np.asarray(gif.convert("L"), float) - first).max() > 50


def test_mp4_goes_through_ffmpeg_where_there_is_one(tmp_path, monkeypatch, capsys):
    # A stand-in that stores its input, since the machine may have no ffmpeg.
    ffmpeg = tmp_path / "ffmpeg"
    ffmpeg.write_text('#!/bin/sh\nfor last; do :; done\ncat > "$last"\n')
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    frames = [np.full((5, 7, 3), 40 * i, np.uint8) for i in range(3)]
    animations._write(iter(frames), tmp_path / "clip")
    assert (tmp_path / "clip.mp4").stat().st_size == 3 * 4 * 6 * 3  # cut to even sizes
    ffmpeg.write_text("#!/bin/sh\necho unknown encoder >&2\nexit 1\n")
    animations._write(iter(frames), tmp_path / "clip")
    assert "unknown encoder" in capsys.readouterr().out
    assert (tmp_path / "clip.mp4").stat().st_size == 3 * 4 * 6 * 3  # as it was
    assert not list(tmp_path.glob("*.tmp"))


def test_mistakes_are_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file" / "x")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --out") and message.count("\n") == 1
    for words, part in {
        ("--system", "spring"): "pendulum",
        ("--states=5",): "--states: needs the run of --workdir",
        ("--workdir=x", "--no_animations"): "--no_animations: is about a textbook system",
    }.items():
        with pytest.raises(SystemExit) as exit:
            main(["--out", str(tmp_path), *words])
        assert exit.value.code == 2 and part in capsys.readouterr().err


def test_module_runs_and_helps():
    run = [sys.executable, "-m", "hamjepa_jax.physics", "--help"]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "--system" in done.stdout and "--no_animations" in done.stdout
