"""ResNet trunks as other programs save them: found under any prefix, the right one taken, damage refused."""

import logging
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import golden_weight
from torch_format import write_zip

from hamjepa_jax import nn
from hamjepa_jax.config import shipped
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.torch import encoder_from_state_dict, import_checkpoint, importer, state_dict_from_encoder
from hamjepa_jax.interop.torch.checkpoint import parse
from hamjepa_jax.interop.torch.file import read_file
from hamjepa_jax.interop.workdirs import read_networks

TINY = "tests/tiny.py"


@pytest.fixture(scope="module")
def encoder():
    """Torch-named weights of the encoder of tests/tiny.py."""
    module = nn.TokenEncoder(nn.ResNet18("cifar", 2, width=4), None, 4, True)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False))
    names = state_dict_from_encoder(jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes))
    return {k: golden_weight(k, v.shape).astype(np.float32) if v.ndim else v for k, v in names.items()}


@pytest.fixture(scope="module")
def trunk(encoder):
    """The same trunk with torchvision's names."""
    renamed = {k.replace("stem.0", "conv1").replace("stem.1", "bn1"): v for k, v in encoder.items()}
    return {k: v for k, v in renamed.items() if not k.startswith("token")}


def under(prefix, weights, factor=1):
    return {f"{prefix}{k}": np.asarray(v * factor) for k, v in weights.items()}


def sequential(weights):
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5"}
    return {".".join([places[k.split(".")[0]], *k.split(".")[1:]]): v for k, v in weights.items()}


HEAD = {"projector.0.weight": np.zeros((3, 8), np.float32)}
FORMS = {
    "torchvision": lambda t: t | {"fc.weight": np.zeros((10, 8), np.float32)},
    "backbone": lambda t: under("backbone.", t) | HEAD,
    "compiled, data parallel": lambda t: under("module._orig_mod.encoder.", t) | HEAD,
    "data parallel, compiled": lambda t: under("_orig_mod.module.model.", t),
    "Lightning": lambda t: {"state_dict": under("model.backbone.", t), "hparams": {"lr": 1.0}, "epoch": 7},
    "nested twice": lambda t: {"checkpoint": {"model": t, "step": 3}},
    "lightly": lambda t: {"state_dict": under("backbone.", sequential(t)) | HEAD},
    "an encoder's entry": lambda t: {"encoder": under("backbone.", sequential(t))},
    "MoCo": lambda t: {
        "state_dict": under("module.encoder_k.", t, 2) | under("module.encoder_q.", t) | {"module.queue": HEAD}
    },
    "timm's average": lambda t: {"state_dict_ema": under("", t, 2), "state_dict": t, "arch": "resnet18"},
    "DINO": lambda t: {"teacher": under("module.backbone.", t, 2), "student": under("module.backbone.", t)},
    "optimizer's state": lambda t: {"optimizer": {"state": {"0": {"exp_avg": t["conv1.weight"]}}}, "net": t},
}


def test_a_trunk_that_ends_early_gives_its_last_layer(trunk):
    """As an export writes it; the default config reads a later layer."""
    found = parse(trunk, None)
    assert shipped("cifar100").encoder.token_layer > 2
    assert importer._config(found, None, None, {}, {}).encoder.token_layer == 2
    assert importer._config(found, None, None, {"token_layer": 1}, {}).encoder.token_layer == 1


@pytest.mark.parametrize("form", FORMS)
def test_the_trunk_is_found_under_any_prefix(form, trunk):
    found = parse(FORMS[form](trunk))
    assert found.is_trunk and found.predictor == {}
    assert found.encoder.keys() - {"fc.weight"} == trunk.keys()
    for name in trunk:
        np.testing.assert_array_equal(found.encoder[name], trunk[name])


PREFIXES = (
    "", "module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.", "encoder.", "module.encoder_q.",
    "model.backbone.", "online_network.encoder.", "net.module.",
)  # fmt: skip
CONTAINERS = {
    "weights alone": lambda t: t,
    "Lightning": lambda t: {"epoch": 3, "state_dict": t, "hyper_parameters": {"lr": 0.1}},
    "nested": lambda t: {"checkpoint": {"model": t, "step": 3}},
    "student and teacher": lambda t: {"teacher": under("", t, 2), "student": t, "args": None},
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_files_of_every_prefix_and_container_are_read(container, trunk, tmp_path):
    for prefix in PREFIXES:
        write_zip(tmp_path / "file.pth", CONTAINERS[container](under(prefix, trunk) | HEAD))
        found = parse(read_file(tmp_path / "file.pth"))
        assert found.is_trunk and found.encoder.keys() == trunk.keys(), prefix
        for name in trunk:
            np.testing.assert_array_equal(found.encoder[name], trunk[name])


@pytest.mark.parametrize(
    "form, part", [("timm's average", "state_dict_ema"), ("DINO", "teacher"), ("MoCo", "encoder_k")]
)
def test_another_one_is_taken_by_name(form, part, trunk):
    np.testing.assert_array_equal(
        parse(FORMS[form](trunk), part).encoder["conv1.weight"], 2 * trunk["conv1.weight"]
    )


def test_a_name_that_is_not_there_is_refused_with_those_that_are(trunk):
    with pytest.raises(
        UserError, match=r"--part momentum: .* there are 'student' under 'module.backbone', 'teacher'"
    ):
        parse(FORMS["DINO"](trunk), "momentum")


def test_one_of_our_encoders_is_found_with_its_predictor(encoder):
    potential = {"H.residual_V.0.weight": np.ones((16, 32), np.float32)}
    saved = {"state_dict": under("model.encoder.", encoder) | under("model.predictor.", potential)}
    found = parse(saved)
    assert found.encoder.keys() == encoder.keys() and found.predictor.keys() == potential.keys()
    assert not found.is_trunk and found.unused == ()


def test_the_import_says_what_it_took_and_what_it_left(trunk, encoder, tmp_path, caplog):
    write_zip(tmp_path / "dino.pth", FORMS["DINO"](trunk) | {"epoch": 5})
    with caplog.at_level(logging.INFO):
        import_checkpoint(tmp_path / "dino.pth", tmp_path / "run", config=TINY)
    assert "took the weights of 'student' under 'module.backbone'" in caplog.text
    assert "also has 'teacher' under 'module.backbone'" in caplog.text and "not read: teacher" in caplog.text
    networks = read_networks(tmp_path / "run")
    _, want = encoder_from_state_dict(encoder, stem="cifar", token_layer=2, token_hw=None, split_qp=True)
    jax.tree.map(np.testing.assert_array_equal, networks.params["encoder"]["trunk"], want["params"]["trunk"])


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("layer1.0.conv1.weight", np.nan, r"layer1\.0\.conv1\.weight: holds numbers that are not finite"),
        ("layer1.0.bn1.running_mean", np.inf, "not finite"),
        ("bn1.running_var", -1e-3, r"bn1\.running_var: holds a negative variance"),
    ],
)
def test_damaged_numbers_are_refused(name, value, message, trunk):
    broken = trunk[name].copy()
    broken.flat[0] = value
    with pytest.raises(UserError, match=message):
        parse({"state_dict": under("backbone.", trunk | {name: broken})})


def test_deeper_networks_and_files_without_any_are_refused(trunk, tmp_path):
    for extra, message in (
        ("layer2.22.conv1.weight", r"basic blocks \(2 in layer1, 23 in layer2\), so it is none of the ResNets"),
        ("layer1.0.conv3.weight", r"unexpected: layer1\.0\.conv3\.weight"),
    ):
        write_zip(tmp_path / "deep.pth", trunk | {extra: np.zeros((4, 4, 1, 1), np.float32)})
        with pytest.raises(UserError, match=message):
            import_checkpoint(tmp_path / "deep.pth", tmp_path / "run", config=TINY)
    with pytest.raises(UserError, match=r"no encoder; the weights found are w\. Expected"):
        parse({"model": {"w": np.zeros(3, np.float32)}})
    with pytest.raises(UserError, match=r"holds a list; .*state_dict\(\)"):
        parse([1])


def test_a_torchscript_program_is_refused_with_the_remedy(tmp_path):
    write_zip(tmp_path / "script.pt", {"w": np.zeros(3, np.float32)})
    with zipfile.ZipFile(tmp_path / "script.pt", "a") as archive:
        archive.writestr("archive/code/__torch__.py", "")
    with pytest.raises(UserError, match=r"TorchScript program.*torch\.jit\.load\('script\.pt'\)\.state_dict\(\)"):
        import_checkpoint(tmp_path / "script.pt", tmp_path / "run", config=TINY)
