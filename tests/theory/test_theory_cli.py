"""`python -m hamjepa_jax.theory`: what it writes, and what it says when it cannot."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from hamjepa_jax.theory.__main__ import main
from hamjepa_jax.theory.figures import FIGURES


def test_figures_captions_and_numbers_are_written(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "new")]) == 0
    out = tmp_path / "new"
    assert {p.stem for p in out.glob("*.png")} == {p.stem for p in out.glob("*.pdf")} == set(FIGURES)
    captions = (out / "captions.md").read_text()
    for name in FIGURES:
        assert f"## {name}\n" in captions
        assert np.asarray(Image.open(out / f"{name}.png").convert("L")).std() > 10  # drawn, not blank
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["price/d64_condition1000/one large eigenvalue"] == pytest.approx(64 * 1000 / 1063)
    for condition in (10, 100, 1000):
        of = f"misalignment/condition{condition}/isotropic"
        assert 1 < numbers[f"{of}/median"] < numbers[f"{of}/worst"] < 16
    assert str(out) in capsys.readouterr().out


def test_mistakes_are_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --out") and message.count("\n") == 1


def test_no_folder_is_no_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--out="]) == 2
    assert "--out: the path is empty" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs limits on the size of files")
def test_a_disk_that_fails_is_one_sentence(tmp_path):
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    run = [sys.executable, "-m", "hamjepa_jax.theory", f"--out={tmp_path}"]
    environment = os.environ | {"MPLCONFIGDIR": str(tmp_path / "cache")}
    done = subprocess.run(run, capture_output=True, text=True, preexec_fn=limit, env=environment)
    assert done.returncode == 1, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: {tmp_path}: cannot be written (File too large")
    assert "raise the limit on the size of files" in line and "Traceback" not in done.stderr


def test_module_helps():
    run = [sys.executable, "-m", "hamjepa_jax.theory", "--help"]
    assert "--out" in subprocess.run(run, capture_output=True, text=True, check=True).stdout
