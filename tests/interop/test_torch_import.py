"""PyTorch checkpoints become workdirs: exact weights, stated settings, named mistakes."""

import json
import logging
import runpy
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import golden_random, golden_weight
from jax.sharding import SingleDeviceSharding
from safetensors.numpy import save_file
from torch_format import write_legacy, write_zip

from hamjepa_jax import build, nn
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.torch import __main__ as torch_page
from hamjepa_jax.interop.torch import (
    encoder_from_state_dict,
    import_checkpoint,
    mlp_from_state_dict,
    state_dict_from_encoder,
    state_dict_from_mlp,
)
from hamjepa_jax.interop.workdirs import read_networks
from hamjepa_jax.run.restore import open_checkpoints, saved_networks
from hamjepa_jax.run.workdir import saved_config

TINY = "tests/tiny.py"
SETTINGS = dict(stem="cifar", token_layer=2, token_hw=None, split_qp=True)


@pytest.fixture(scope="module")
def narrow():
    """Torch-named weights of the encoder and the potential of tests/tiny.py, none as initialised."""
    encoder = nn.TokenEncoder(nn.ResNet18("cifar", 2, width=4), None, 4, True)
    shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False))
    names = state_dict_from_encoder(jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes))
    weights = {k: golden_weight(k, v.shape).astype(np.float32) if v.ndim else v for k, v in names.items()}
    sizes = {"0": (16, 32), "2": (16, 16), "4": (1, 16)}  # d = 4·4·4/2
    predictor = {}
    for position, shape in sizes.items():
        name = f"H.residual_V.{position}"
        predictor[f"{name}.weight"] = golden_random(f"{name}.weight", *shape).astype(np.float32)
        predictor[f"{name}.bias"] = golden_random(f"{name}.bias", shape[0]).astype(np.float32)
    return weights, predictor


def run_of(narrow, **other):
    weights, predictor = narrow
    settings = {"model": {"token_hw": None, "split_qp": True}, "predictor": {"base_coeff": 0.25}}
    return {"encoder": weights, "predictor": predictor, "config": settings, "epoch": 30, "optimizer": {}} | other


def features(workdir, images):
    config, networks = saved_config(workdir), read_networks(workdir)
    return build.build_model(config).features(networks.params, networks.batch_stats, images)


def torch_weights(workdir):
    networks = read_networks(workdir)
    encoder = {"params": networks.params["encoder"], "batch_stats": networks.batch_stats["encoder"]}
    return state_dict_from_encoder(encoder), networks.params["predictor"]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_torch_to_here_to_torch_is_exact(narrow):
    weights, predictor = narrow
    _, variables = encoder_from_state_dict(weights, **SETTINGS)
    assert_same(state_dict_from_encoder(variables), weights)
    params = mlp_from_state_dict(predictor, "H.residual_V.")
    assert_same(state_dict_from_mlp(params, "H.residual_V."), predictor)


def test_global_encoders_go_back_to_their_names(goldens):
    names = json.loads(str(goldens("encoder")["global/names"]))
    weights = {
        k: golden_random(k, *s).astype(np.float32) if s else np.zeros((), np.int64) for k, s in names.items()
    }
    _, variables = encoder_from_state_dict(weights, stem="cifar", token_layer=None, token_hw=None, split_qp=False)
    assert_same(state_dict_from_encoder(variables), weights)


@pytest.mark.slow
def test_a_published_checkpoint_gives_the_published_features(goldens, tmp_path):
    golden = goldens("encoder")
    names = json.loads(str(golden["cifar_layer3/names"]))
    weights = {k: golden_weight(k, s).astype(np.float32) for k, s in names.items() if s and "layer4.1" not in k}
    potential = {"0": (256, 1024), "2": (256, 256), "4": (1, 256)}
    predictor = {f"H.residual_V.{n}.weight": np.full(s, 0.01, np.float32) for n, s in potential.items()}
    predictor |= {f"H.residual_V.{n}.bias": np.zeros(s[0], np.float32) for n, s in potential.items()}
    write_zip(tmp_path / "run.pth", {"encoder": weights, "predictor": predictor, "config": {}, "epoch": 30})

    config = import_checkpoint(tmp_path / "run.pth", tmp_path / "run")
    assert config.encoder.to_dict() | SETTINGS | {"token_layer": 3, "width": 64} == config.encoder.to_dict()
    images = golden_random("enc.x32", 2, 3, 32, 32).astype(np.float32).transpose(0, 2, 3, 1)
    want = golden["cifar_layer3/eval"]
    assert np.abs(features(tmp_path / "run", images) - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("form", ["run", "run of older torch", "prefixed", "nested", "safetensors"])
def test_every_form_of_a_checkpoint_is_read(form, narrow, tmp_path):
    weights, predictor = narrow
    path, given = tmp_path / "run.pth", {}
    prefixed = {f"module.encoder.{k}": v for k, v in weights.items()}
    prefixed |= {f"module.predictor.{k}": v for k, v in predictor.items()}
    if form == "run":
        write_zip(path, run_of(narrow))
    elif form == "run of older torch":
        write_legacy(path, run_of(narrow))
    elif form == "prefixed":
        write_zip(path, prefixed)
    elif form == "nested":
        write_zip(path, {"state_dict": {f"encoder.{k}": v for k, v in weights.items()}, "epoch": 3})
        given = {"token_hw": None, "split_qp": True}
    else:
        path = tmp_path / "run.safetensors"
        save_file(prefixed, path)
    staged = tiny.get_config()
    if form != "nested":  # With a predictor, whose weights have been through all stages.
        staged.predictor.num_steps, staged.predictor.horizon = 4, ((1, 1), (2, 4))
    config = import_checkpoint(path, tmp_path / "run", config=staged, given=given)
    assert saved_config(tmp_path / "run") == config
    assert config.encoder.token_hw is None and config.encoder.split_qp and config.encoder.token_layer == 2
    back, params = torch_weights(tmp_path / "run")
    assert_same(back, weights)
    if form != "nested":
        assert_same(state_dict_from_mlp(params["mlp"], "H.residual_V."), predictor)
        assert config.predictor.residual_warmup_epochs == 0 and config.predictor.horizon == ()
        assert config.predictor.base_coeff == (0.25 if form.startswith("run") else 0.1)


def test_a_classifier_s_trunk_is_taken_and_the_rest_stays_fresh(narrow, tmp_path):
    weights, _ = narrow
    trunk = {
        k.replace("stem.0", "conv1").replace("stem.1", "bn1"): v for k, v in weights.items() if "token" not in k
    }
    trunk |= {"fc.weight": np.zeros((10, 8), np.float32), "fc.bias": np.zeros(10, np.float32)}
    write_zip(tmp_path / "resnet18.pth", trunk)
    import_checkpoint(tmp_path / "resnet18.pth", tmp_path / "run", config=TINY)
    back, params = torch_weights(tmp_path / "run")
    assert_same(
        {k: v for k, v in back.items() if "token" not in k}, {k: v for k, v in weights.items() if "token" not in k}
    )
    np.testing.assert_array_equal(back["token_proj.1.running_var"], 1)
    assert params["mlp"]["hidden0"]["dense"]["kernel"].shape == (32, 16)


@pytest.mark.parametrize(
    "change, given, message",
    [
        (lambda w, p: w.pop("layer1.0.bn1.running_var"), {}, r"lacks .*layer1\.0\.bn1\.running_var"),
        (lambda w, p: w.update({"layer1.0.conv3.weight": w["token_proj.0.weight"]}), {}, r"unexpected.*conv3"),
        (lambda w, p: w.update({"token_proj.1.bias": np.zeros(5, np.float32)}), {}, r"token_proj\.1\.bias \(5,\)"),
        (lambda w, p: w.update({"stem.0.weight": np.zeros((4, 3, 5, 5), np.float32)}), {}, "3×3 or 7×7"),
        (lambda w, p: p.update({"raw_dt": np.zeros((), np.float32)}), {}, "raw_dt"),
        (lambda w, p: p.clear(), {}, "--split_qp is missing"),
        (lambda w, p: p.clear(), {"split_qp": True}, "--token_hw is missing"),
        (lambda w, p: None, {"stem": "imagenet"}, "--stem imagenet"),
        (lambda w, p: None, {"token_layer": 3}, "--token_layer 3"),
        (lambda w, p: None, {"token_hw": 2}, "--token_hw"),
    ],
)
def test_what_does_not_fit_is_named(change, given, message, narrow, tmp_path):
    weights, predictor = dict(narrow[0]), dict(narrow[1])
    change(weights, predictor)
    write_zip(tmp_path / "bad.pth", {"encoder": weights, "predictor": predictor})
    with pytest.raises(UserError, match=message):
        import_checkpoint(tmp_path / "bad.pth", tmp_path / "run", config=TINY, given=given)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"base_coeff": "auto"}, r"base_coeff \['auto'\], which is no number"),
        ({"model": {"base_coeff": 0.5}, "predictor": {"base_coeff": 0.25}}, r"base_coeff \[0\.25, 0\.5\]"),
    ],
)
def test_a_number_that_the_checkpoint_does_not_say_clearly_is_asked_for(settings, message, narrow, tmp_path):
    write_zip(tmp_path / "run.pth", run_of(narrow, config=settings | {"residual_scale": None}))
    with pytest.raises(UserError, match=f"{message}.*give --override=predictor.base_coeff="):
        import_checkpoint(tmp_path / "run.pth", tmp_path / "run", config=TINY)
    given = ["predictor.base_coeff=0.75"]
    config = import_checkpoint(tmp_path / "run.pth", tmp_path / "run", config=TINY, overrides=given)
    assert config.predictor.base_coeff == 0.75
    assert config.predictor.residual_scale == tiny.get_config().predictor.residual_scale


def test_without_strictness_the_rest_is_taken(narrow, tmp_path, caplog):
    weights = dict(narrow[0], extra=np.ones(2, np.float32))
    del weights["token_proj.1.bias"]
    write_zip(tmp_path / "run.pth", run_of(narrow, encoder=weights))
    import_checkpoint(tmp_path / "run.pth", tmp_path / "run", config=TINY, strict=False)
    back, _ = torch_weights(tmp_path / "run")
    np.testing.assert_array_equal(back["token_proj.1.bias"], 0)
    np.testing.assert_array_equal(back["stem.0.weight"], weights["stem.0.weight"])
    assert "token_proj.1.bias" in caplog.text and "extra" in caplog.text


def test_the_command_makes_a_workdir_and_refuses_a_second_one(narrow, tmp_path, capsys, monkeypatch):
    logger = logging.getLogger("hamjepa_jax")  # The command gives it a handler, which this test takes back.
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    write_zip(tmp_path / "run.pth", run_of(narrow))
    command = [
        str(tmp_path / "run.pth"),
        f"--out={tmp_path / 'run'}",
        f"--config={TINY}",
        "--source=synthetic:100x8",
    ]
    changes = ["--override", "optimizer.learning_rate=0.001", "--override", "data.memory_budget_gb=1.0"]
    monkeypatch.setattr(sys, "argv", ["torch", *command, *changes])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(torch_page.__file__, run_name="__main__")
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert f"wrote {tmp_path / 'run'}: epoch 30" in printed and "not read: optimizer" in printed
    assert f"evaluate:  python -m hamjepa_jax.main --mode=evaluate --workdir={tmp_path / 'run'}" in printed
    config = saved_config(tmp_path / "run")
    assert (config.data.source, config.optimizer.learning_rate) == ("synthetic:100x8", 0.001)
    origin = json.loads((tmp_path / "run" / "config.json").read_text())["origin"]
    assert origin == {"file": "run.pth", "epoch": 30}
    assert torch_page.main(command) == 2
    assert "there is a run in it" in capsys.readouterr().err
    assert torch_page.main([*command[:1], f"--out={tmp_path / 'b'}", "--override", "optimizer.lr=1"]) == 2
    assert "optimizer.lr" in capsys.readouterr().err


def test_a_file_written_by_torch_gives_torch_s_features(narrow, tmp_path):
    torch = pytest.importorskip("torch")
    weights = {k: torch.from_numpy(v.copy()) for k, v in narrow[0].items()}
    torch.save(
        {"encoder": weights, "predictor": {k: torch.from_numpy(v) for k, v in narrow[1].items()}},
        tmp_path / "t.pth",
    )
    import_checkpoint(tmp_path / "t.pth", tmp_path / "run", config=TINY)
    images = golden_random("torch.x", 3, 8, 8, 3).astype(np.float32)
    want = torch_features(torch, weights, torch.from_numpy(images.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(features(tmp_path / "run", images), want, atol=1e-4)


def torch_features(torch, w, x):
    """The encoder of tests/tiny.py written out with torch's functions."""
    F = torch.nn.functional

    def bn(x, name):
        parts = (w[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, training=False, eps=1e-5)

    def block(x, name, stride):
        y = F.relu(bn(F.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
        y = bn(F.conv2d(y, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        if stride > 1:
            x = bn(F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
        return F.relu(x + y)

    x = F.relu(bn(F.conv2d(x, w["stem.0.weight"], padding=1), "stem.1"))
    for name, stride in (("layer1.0", 1), ("layer1.1", 1), ("layer2.0", 2), ("layer2.1", 1)):
        x = block(x, name, stride)
    tokens = bn(F.conv2d(x, w["token_proj.0.weight"]), "token_proj.1").permute(0, 2, 3, 1)
    q, p = tokens.chunk(2, dim=-1)
    return torch.cat([q.reshape(len(x), -1), p.reshape(len(x), -1)], 1).numpy()


@pytest.mark.slow
def test_an_imported_run_trains_on_and_is_evaluated(narrow, tmp_path):
    from hamjepa_jax.evaluate import evaluate
    from hamjepa_jax.train import train

    write_zip(tmp_path / "run.pth", run_of(narrow))
    config = import_checkpoint(tmp_path / "run.pth", tmp_path / "run", config=TINY)
    before = evaluate(saved_config(tmp_path / "run"), tmp_path / "run")
    assert before["step"] == 0
    assert train(config, tmp_path / "run")["step"] == tiny.get_config().train.epochs * 6
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["data_fingerprint"] and record["origin"]["file"] == "run.pth"
    config.data.source = "synthetic:106x8"
    with pytest.raises(UserError, match="are not those it was begun with"):
        train(config, tmp_path / "run")


def test_a_teacher_begins_as_a_copy_of_the_imported_networks(narrow, tmp_path):
    run = run_of(narrow)
    del run["predictor"]
    write_zip(tmp_path / "run.pt", run)
    config = tiny.get_config()
    config.objective.name, config.predictor.kind, config.objective.byol.predictor_hidden = "byol", "identity", 8
    import_checkpoint(tmp_path / "run.pt", tmp_path / "run", config=config)
    config = saved_config(tmp_path / "run")
    with open_checkpoints(config, tmp_path / "run") as checkpoints:
        state = saved_networks(checkpoints, SingleDeviceSharding(jax.devices()[0]))
    kernel = state["params"]["encoder"]["token_conv"]["kernel"]
    np.testing.assert_array_equal(kernel, np.transpose(narrow[0]["token_proj.0.weight"], (2, 3, 1, 0)))
    teacher = state["teacher"]
    for part in ("params", "batch_stats"):
        assert set(teacher[part]) == {"encoder"}
        jax.tree.map(np.testing.assert_array_equal, teacher[part]["encoder"], state[part]["encoder"])
