"""Exports: exact weights there and back, a program that equals the encoder, a card with the run's numbers."""

import json
import logging
import runpy
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import golden_random
from safetensors.numpy import load_file

from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.export import __main__ as export_page
from hamjepa_jax.interop.export import export_run, restore_workdir
from hamjepa_jax.interop.exported import read_export, write_config, write_weights
from hamjepa_jax.interop.model_card import model_card
from hamjepa_jax.interop.pretrained import load
from hamjepa_jax.interop.torch import import_checkpoint
from hamjepa_jax.interop.workdirs import Networks, fresh_state, read_networks, write_workdir
from hamjepa_jax.run.restore import load_run, trained_flow
from hamjepa_jax.run.workdir import saved_config

METRICS = {
    "step": 0,
    "trained": {
        f"{readout}/{key}": 0.25 + i / 10
        for i, readout in enumerate(("q", "p", "qp"))
        for key in ("knn_top1_k20_cosine_majority", "probe_top1_adamw_lr0.001_wd1e-06_bs256_ep50")
    },
}


def randomised(tree):
    """Weights none of which is as initialised."""
    leaves, structure = jax.tree.flatten(tree)
    made = [0.5 + np.abs(golden_random(f"leaf{i}", *np.shape(x))).astype(np.float32) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(structure, made)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("runs") / "tiny", tiny.get_config()
    state = fresh_state(config)
    state = state.replace(params=randomised(state.params), batch_stats=randomised(state.batch_stats))
    write_workdir(folder, config, state, {"file": "test.pth"})
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return folder


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "tiny"
    export_run(workdir, folder)
    return folder


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.slow
def test_weights_and_config_come_back_exactly(workdir, exported, tmp_path):
    config, networks = read_export(exported)
    assert config == saved_config(workdir)
    assert_same(networks, read_networks(workdir))
    restore_workdir(exported, tmp_path / "again")
    assert_same(read_networks(tmp_path / "again"), networks)


def test_a_flow_is_the_same_when_it_comes_back(tmp_path):
    config = tiny.quick("hamjepa")
    config.predictor.num_steps, config.predictor.horizon = 4, ((1, 1), (2, 4))
    state = fresh_state(config)
    (tmp_path / "out").mkdir()
    write_weights(tmp_path / "out", Networks(12, state.params, state.batch_stats))
    write_config(tmp_path / "out", config, 12, {})
    restore_workdir(tmp_path / "out", tmp_path / "again")
    flow, _ = trained_flow(load_run(tmp_path / "again"))
    z = golden_random("export.z", 3, 64).astype(np.float32)
    np.testing.assert_allclose(flow(z, 1), load(tmp_path / "out").predict(z), atol=1e-6)


def test_the_program_equals_the_encoder_for_any_number_of_images(workdir, exported):
    program = jax.export.deserialize(bytearray((exported / "encoder.stablehlo").read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    encoder = load(workdir)
    for n in (1, 3):
        images = np.random.default_rng(n).uniform(size=(n, 8, 8, 3)).astype(np.float32)
        want = encoder(images).z
        np.testing.assert_allclose(program.call(jnp.asarray(images)), want, atol=1e-5 * np.abs(want).max())


def test_torch_weights_come_in_again_as_they_went_out(workdir, exported, tmp_path):
    weights = load_file(exported / "torch.safetensors")
    assert weights["encoder.layer1.0.conv1.weight"].shape == (4, 4, 3, 3)
    assert weights["predictor.H.residual_V.0.weight"].shape == (16, 32)
    import_checkpoint(exported / "torch.safetensors", tmp_path / "run", config="tests/tiny.py")
    assert_same(read_networks(tmp_path / "run"), read_networks(workdir))


def test_the_card_has_the_run_s_numbers(exported):
    card = (exported / "README.md").read_text()
    _, metadata, text = card.split("---\n", 2)
    assert "library_name: hamjepa_jax" in metadata
    assert '      name: "q/knn_top1_k20_cosine_majority"\n      value: 0.2500' in metadata
    row = next(line for line in text.splitlines() if line.startswith("| p "))
    assert "35.00" in row
    assert "begun from the weights of `test.pth`" in text
    yaml = pytest.importorskip("yaml")
    parsed = yaml.safe_load(metadata)
    results = parsed["model-index"][0]["results"][0]
    assert [m["value"] for m in results["metrics"]] == list(METRICS["trained"].values())
    assert json.loads((exported / "config.json").read_text())["model_type"] == "hamjepa_jax"


def test_numbers_of_other_weights_are_not_claimed(workdir, tmp_path):
    metrics = (workdir / "metrics.json").read_text()
    try:
        (workdir / "metrics.json").write_text(json.dumps(METRICS | {"step": 7}))
        export_run(workdir, tmp_path / "out")
    finally:
        (workdir / "metrics.json").write_text(metrics)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "These weights were not evaluated." in card and "model-index" not in card


def test_a_config_of_other_networks_is_told(workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    for change, message in [
        ({"width": 8}, "the encoder saved there is not the config's"),
        ({"width": None}, "width"),
    ]:
        changed = record | {"config": record["config"] | {"encoder": record["config"]["encoder"] | change}}
        (tmp_path / "run" / "config.json").write_text(json.dumps(changed))
        for read in (load, lambda run: export_run(run, tmp_path / "out")):
            with pytest.raises(UserError, match=message):
                read(tmp_path / "run")


def test_names_of_any_kind_stand_in_the_card(tiny_config):
    tiny_config.data.source = "folder:/data/fi\udce9sh\nand more"
    card = model_card("mine\nand yours", tiny_config, 3, METRICS, None, torch_names=True)
    assert "# mine and yours\n" in card and r"`folder:/data/fi\udce9sh and more`" in card
    assert card.encode() and json.dumps(r"folder:/data/fi\udce9sh and more") in card


def test_the_card_says_what_was_learned_from_and_what_the_numbers_are_of(tiny_config):
    ranks = {"step": 0, "trained": {"q/effective_rank_top256": 3.0}}

    def card(metrics):
        return model_card("mine", tiny_config, 3, metrics, None, torch_names=False)

    assert "trained without labels on" in card(ranks) and "- self-supervised-learning" in card(ranks)
    assert "the bank of the kNN" in card(METRICS) and "the bank of the kNN" not in card(ranks)
    tiny_config.objective.name, tiny_config.evaluate.source = "classification", "digits"
    assert "trained with labels on `synthetic:96x8`" in card(METRICS) and "self-supervised" not in card(METRICS)
    assert 'name: "digits"' in card(METRICS) and "the test images of `digits`" in card(METRICS)


def test_a_workdir_that_no_checkpoint_can_be_read_from_is_refused(workdir, tmp_path):
    export_run(workdir, tmp_path / "out")
    with pytest.raises(UserError, match=r"--out .*again\[1\]: checkpoints cannot be kept below a path with \["):
        restore_workdir(tmp_path / "out", tmp_path / "again[1]")


def test_the_command_goes_both_ways_and_names_mistakes(workdir, tmp_path, capsys, monkeypatch):
    logger = logging.getLogger("hamjepa_jax")  # The command gives it a handler, which this test takes back.
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    out, again = tmp_path / "out", tmp_path / "again"
    monkeypatch.setattr(sys, "argv", ["export", str(workdir), f"--out={out}", "--name=my model"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(export_page.__file__, run_name="__main__")
    assert stopped.value.code == 0 and f"wrote {out}: README.md, config.json" in capsys.readouterr().out
    assert "# my model" in (out / "README.md").read_text()
    assert export_page.main([str(out), f"--out={again}"]) == 0
    assert_same(read_networks(again), read_networks(workdir))
    (tmp_path / "checkout" / ".git").mkdir(parents=True)
    (tmp_path / "checkout" / "README.md").write_text("# ours")
    for arguments, message in [
        ([str(tmp_path / "none"), f"--out={out}"], "holds no run"),
        ([str(workdir), f"--out={tmp_path / 'checkout'}"], "checkout: holds files that are no export"),
        ([str(workdir), f"--out={workdir}"], "is the workdir of a run"),
        ([str(workdir), f"--out={out}", "--step=5"], "has no such step; it has 0"),
        ([str(out), f"--out={again}"], "there is a run in it"),
        ([str(out), f"--out={tmp_path / 'new'}", "--step=0"], "--step: "),
    ]:
        assert export_page.main(arguments) == 2
        assert message in capsys.readouterr().err


def test_a_damaged_export_is_named(exported, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    whole = (exported / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "config.json").write_text((exported / "config.json").read_text())
    with pytest.raises(UserError, match="damaged"):
        load(folder)
    with pytest.raises(UserError, match="holds no run"):
        load(tmp_path)
