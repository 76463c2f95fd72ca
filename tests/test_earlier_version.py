"""Workdirs and exports that version 0.1 wrote (commit d5f08ef) go on, are evaluated, loaded and exported.

tests/fixtures/written_by_0.1.tar.gz holds two runs of tests/tiny.py's config, killed after step 8 of 12 with the
checkpoint of step 6: one of HamJEPA, one of HamSIGReg with a learned spectrum; the logs of the same runs without a
break; and an export of the first one at its end.
"""

import json
import pathlib
import tarfile

import jax
import numpy as np
import pytest

import hamjepa_jax as hj
from hamjepa_jax.data import open_source
from hamjepa_jax.evaluate.__main__ import main as evaluate
from hamjepa_jax.interop import export
from hamjepa_jax.run.workdir import saved_config
from hamjepa_jax.train import train

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "written_by_0.1.tar.gz"


@pytest.fixture
def written(tmp_path):
    folder = tmp_path / "earlier"
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def logged(file):
    return {r["step"]: r for r in map(json.loads, file.read_text().splitlines()) if "train/total" in r}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hamjepa_begun", "learnable_begun"])
def test_a_begun_run_goes_on_as_if_never_interrupted(written, name):
    workdir = written / name
    assert train(saved_config(workdir), workdir)["step"] == 12
    found, expected = logged(workdir / "metrics.jsonl"), logged(written / f"{name}.metrics.jsonl")
    assert found.keys() == expected.keys() == set(range(1, 13))
    for step in range(7, 13):  # Compiled differently, and on eight devices: equal up to rounding.
        for key in ("train/total", "train/pred", "train/learning_rate"):
            np.testing.assert_allclose(found[step][key], expected[step][key], rtol=2e-3, err_msg=f"{step} {key}")


def test_it_is_evaluated_loaded_and_exported(written, tmp_path):
    workdir = written / "hamjepa_begun"
    assert evaluate([str(workdir), "--steps=6", f"--out={tmp_path / 'out'}", "--ks=1,5"]) == 0
    before = json.loads((written / "hamjepa_begun.metrics.json").read_text())
    after = json.loads((tmp_path / "out" / "metrics.json").read_text())["checkpoints"][0]
    names = ("effective_rank_randomised_top256", "rankme", "stable_rank", "alpha_req_top100")
    later = {f"{readout}/{name}" for readout in ("q", "p", "qp") for name in names}
    assert [key for key in after["trained"] if key not in later] == list(before["trained"])
    assert later < after["trained"].keys()
    assert hj.load(workdir, step=6)(open_source("synthetic:96x8").test.images).z.shape == (10, 64)
    export.export_run(workdir, tmp_path / "export", step=6)
    assert hj.load(tmp_path / "export").step == 6


def test_an_export_is_loaded_and_made_a_workdir_again(written, tmp_path):
    encoder = hj.load(written / "export")
    images = open_source("synthetic:96x8").test.images
    export.restore_workdir(written / "export", tmp_path / "again")
    again = hj.load(tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, encoder.params, again.params)
    np.testing.assert_array_equal(encoder(images).z, again(images).z)
