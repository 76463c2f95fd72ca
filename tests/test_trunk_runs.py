"""Whole runs on trunks other than the ResNet-18: trained, evaluated, exported, and their configs from a folder."""

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from hamjepa_jax import build
from hamjepa_jax.config import shipped
from hamjepa_jax.config.files import read_config
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.export import export_run
from hamjepa_jax.interop.exported import read_export
from hamjepa_jax.interop.pretrained import load
from hamjepa_jax.interop.torch import import_checkpoint
from hamjepa_jax.interop.workdirs import read_networks
from hamjepa_jax.train import train

SMALL_VIT = dict(patch=2, image_size=8, dim=16, depth=2, heads=2)


def narrow(trunk):
    """The config of a run of seconds."""
    config = tiny.quick("hamjepa")
    config.encoder.trunk, config.encoder.token_hw = trunk, 2
    if trunk == "resnet50":
        config.encoder.token_layer = 1
    else:
        config.encoder.vit.update(SMALL_VIT)
        config.encoder.token_norm = "layer"
        config.views.num_local, config.views.local_size, config.views.blur_kernel = 1, 6, 3
    config.train.steps, config.optimizer.warmup, config.checkpoint.every = 2, "1 steps", "2 steps"
    config.evaluate.every, config.evaluate.probe.epochs, config.evaluate.flow = "", 0, 2
    return config


@pytest.mark.slow
@pytest.mark.parametrize("trunk", ["resnet50", "vit_small"])
def test_a_trunk_is_trained_evaluated_and_exported(trunk, tmp_path):
    config, losses = narrow(trunk), []
    metrics = train(config, tmp_path / "run", callbacks=[lambda step, state, m: losses.append(float(m["total"]))])
    assert len(losses) == 2 and np.isfinite(losses).all() and losses[0] != losses[1]
    for readout in ("q", "p", "qp"):
        assert np.isfinite(metrics["trained"][f"{readout}/knn_top1_k5_cosine_majority"])
    # Leapfrog is symplectic on the tokens of any trunk.
    assert metrics["trained"]["flow/max_symplectic_defect"] < 1e-5

    export_run(tmp_path / "run", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"({trunk} trunk, {'width 4, to layer 1' if trunk == 'resnet50' else 'patches of 2×2 pixels'})" in card
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    states = load(tmp_path / "run")(images)
    assert states.q.shape == states.p.shape == (3, 8) and states.tokens.shape == (3, 2, 2, 4)
    program = jax.export.deserialize(bytearray((tmp_path / "out" / "encoder.stablehlo").read_bytes()))
    np.testing.assert_allclose(program.call(images.astype(np.float32) / 255), states.z, atol=1e-5)

    networks = read_networks(tmp_path / "run")
    same = (networks.params["encoder"], read_export(tmp_path / "out")[1].params["encoder"])
    jax.tree.map(np.testing.assert_array_equal, *same)
    for file in ("torch", "trunk"):  # A whole encoder, and a trunk with fresh tokens.
        import_checkpoint(tmp_path / "out" / f"{file}.safetensors", tmp_path / file, config=narrow(trunk))
        again = read_networks(tmp_path / file).params["encoder"]
        parts = again if file == "torch" else again["trunk"]
        jax.tree.map(
            np.testing.assert_array_equal,
            parts,
            networks.params["encoder"] if file == "torch" else networks.params["encoder"]["trunk"],
        )
    name = "layer1.0.conv3.weight" if trunk == "resnet50" else "blocks.1.attn.qkv.weight"
    assert name in load_file(tmp_path / "out" / "trunk.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["mean", "class"])
def test_a_transformer_trains_in_global_mode(pool, tmp_path):
    config = narrow("vit_tiny")
    config.encoder.mode, config.encoder.embed_dim, config.encoder.token_hw = "global", 16, None
    config.encoder.vit.pool, config.encoder.vit.registers = pool, 2
    metrics = train(config, tmp_path / "run")
    assert np.isfinite(metrics["trained"]["q/knn_top1_k5_cosine_majority"])
    export_run(tmp_path / "run", tmp_path / "out")
    import_checkpoint(tmp_path / "out" / "torch.safetensors", tmp_path / "again", config=narrow("vit_tiny"))
    one, other = (read_networks(tmp_path / run).params["encoder"] for run in ("run", "again"))
    jax.tree.map(np.testing.assert_array_equal, one, other)


CONFIGS = ("imagenet100_vits", "imagenet100_resnet50")


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("form", ["folder", "arrays"])
def test_the_config_of_a_trunk_trains(name, form, tmp_path):
    """The config itself, with fewer and smaller images, and a network of the same kind that trains in seconds."""
    source = tiny.photographs(tmp_path / "photographs", train=8, val=2)
    if form == "arrays":
        rng = np.random.default_rng(0)
        arrays = {
            f"{s}_images": rng.integers(0, 256, (n, 40, 40, 3), np.uint8) for s, n in (("train", 16), ("test", 4))
        }
        labels = {"train_labels": np.arange(16) % 2, "test_labels": np.arange(4) % 2, "class_names": ["a", "b"]}
        np.savez(tmp_path / "photographs.npz", **arrays, **labels)
        source = f"arrays:{tmp_path / 'photographs.npz'}"
    config, of_seconds = shipped(name, f"epochs=1,source={source}"), tiny.get_config()
    if form == "arrays":
        config.data.store = "device"
    config.data.image_size, config.data.eval_resize, config.data.num_threads = 32, 36, 2
    config.views.local_size, config.views.blur_kernel = 16, 5
    config.encoder.vit.update(SMALL_VIT | dict(patch=4, image_size=32))
    config.encoder.token_hw, config.encoder.width, config.encoder.token_layer = 2, 4, 2
    config.encoder.token_dim, config.predictor.hidden = 4, 16
    config.objective.hamjepa.projection_dim = of_seconds.objective.hamjepa.projection_dim
    config.train.batch_size, config.train.steps, config.optimizer.warmup = 8, 3, "1 steps"
    config.update({block: of_seconds[block].to_dict() for block in ("log", "checkpoint", "evaluate")})
    config.evaluate.every, config.evaluate.probe.epochs = "", 0
    losses = []
    train(config, tmp_path / "run", callbacks=[lambda step, state, m: losses.append(float(m["total"]))])
    assert len(losses) == 3 and np.isfinite(losses).all() and len(set(losses)) == 3


@pytest.mark.parametrize("name", CONFIGS)
def test_the_controls_of_a_trunk_s_config(name):
    configs = {kind: shipped(name, f"predictor={kind}") for kind in ("hamiltonian", "mlp", "identity")}
    for kind, config in configs.items():
        build.check(config)
        assert config.predictor.kind == kind and config.views.num_local == 6
        config.predictor.kind = "hamiltonian"
        assert config.to_dict() == configs["hamiltonian"].to_dict()
    with pytest.raises(
        UserError, match=r"config argument 'predictor=none': must be one of hamiltonian, mlp, identity"
    ):
        read_config(f"{name}:predictor=none")
