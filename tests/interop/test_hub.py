"""The Hugging Face hub: exports go to a server and come back exactly; every failure is one sentence."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny
from hub_server import Hub

import hamjepa_jax as hj
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop import hub as hub_page
from hamjepa_jax.interop.export.__main__ import main
from hamjepa_jax.interop.workdirs import fresh_state, write_workdir


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("runs") / "tiny", tiny.quick()
    write_workdir(folder, config, fresh_state(config), {"file": "test.pth"})
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, which huggingface_hub takes for the real one."""
    constants, served = pytest.importorskip("huggingface_hub.constants"), Hub("secret")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, served.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    yield served
    served.close()


def test_an_export_goes_to_the_hub_and_comes_back_exactly(hub, workdir, tmp_path, capsys):
    assert main([str(workdir), f"--out={tmp_path / 'out'}", "--push=me/tiny"]) == 0
    assert f"pushed to {hub.url}/me/tiny/commit/{'0' * 40}" in capsys.readouterr().out
    (files,) = hub.repositories["me/tiny"]
    assert set(files) >= {"model.safetensors", "config.json", "README.md", "encoder.stablehlo"}
    assert b'hj.load("hf://me/tiny")' in files["README.md"]
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    want = hj.load(workdir)(images).z
    for address in ("hf://me/tiny", "hf://me/tiny@main", f"hf://me/tiny@{'0' * 40}"):
        np.testing.assert_array_equal(hj.load(address)(images).z, want)
    assert sorted(hub.downloads) == ["config.json", "model.safetensors"]  # Once, and not the whole export.
    hub.close()
    np.testing.assert_array_equal(hj.load("hf://me/tiny")(images).z, want)  # from the cache


def test_a_push_again_is_another_commit(hub, workdir, tmp_path):
    for _ in range(2):
        assert main([str(workdir), f"--out={tmp_path / 'out'}", "--push=me/tiny"]) == 0
    assert len(hub.repositories["me/tiny"]) == 2
    assert hj.load(f"hf://me/tiny@{'1' * 40}").step == 0


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://me/none", "hf://me/none: the hub has no such model for you"),
        ("hf://me/tiny@v2", "hf://me/tiny@v2: the hub has no such revision"),
        ("hf://me/other", r"hf://me/other: holds no export of this package \(it has no model.safetensors\)"),
    ],
)
def test_what_is_not_there_is_told(address, message, hub):
    hub.repositories |= {"me/tiny": [{"model.safetensors": b""}], "me/other": [{"weights.bin": b"1"}]}
    with pytest.raises(UserError, match=message):
        hj.load(address)


def test_without_a_network_and_a_copy_there_is_one_sentence(hub):
    hub.close()
    with pytest.raises(UserError, match="hf://me/tiny: the hub cannot be reached, and the cache does not have it"):
        hj.load("hf://me/tiny")


def test_pushing_needs_a_token_that_may(hub, workdir, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "")
    assert main([str(workdir), f"--out={tmp_path / 'out'}", "--push=me/tiny"]) == 2
    assert "there is no token for the hub; log in with `hf auth login`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # refused before the work
    monkeypatch.setenv("HF_TOKEN", "of another")
    assert main([str(workdir), f"--out={tmp_path / 'out'}", "--push=me/tiny"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--push=me/tiny: the hub does not allow it" in error


@pytest.mark.parametrize("address", ["hf://tiny", "hf://me/tiny/more", "hf://me/tiny@", "hf://"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(UserError, match="write hf://owner/name"):
        hj.load(address)


def test_a_missing_package_is_told(monkeypatch, workdir, tmp_path, capsys):
    monkeypatch.setattr(hub_page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'hamjepa-jax\[hub\]'"):
        hj.load("hf://me/tiny")
    assert main([str(workdir), f"--out={tmp_path / 'out'}", "--push=me/tiny"]) == 2
    assert "pip install 'hamjepa-jax[hub]'" in capsys.readouterr().err
    assert main([str(workdir), f"--out={tmp_path / 'out'}", "--push=tiny"]) == 2
    assert "--push=tiny: must be owner/name" in capsys.readouterr().err


def test_offline_mode_reads_the_cache_and_asks_nobody(workdir, tmp_path):
    """In processes of their own: huggingface_hub reads HF_ENDPOINT and HF_HUB_OFFLINE when it is imported."""
    pytest.importorskip("huggingface_hub")
    served = Hub("secret")
    settings = {"HF_ENDPOINT": served.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "secret"}
    export = ["-m", "hamjepa_jax.interop.export", str(workdir), f"--out={tmp_path / 'out'}", "--push=me/tiny"]
    load = ["-c", "import json, hamjepa_jax as hj; print(json.dumps(hj.load('hf://me/tiny').step))"]

    def run(words, **more):
        done = subprocess.run(
            [sys.executable, *words], env=os.environ | settings | more, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(export)
    run(load)
    asked = len(served.downloads)
    served.close()
    assert json.loads(run(load, HF_HUB_OFFLINE="1")) == 0 and len(served.downloads) == asked
