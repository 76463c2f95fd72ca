"""The encoder's type of computation: chosen by the devices once, and then the run's own."""

import json
import logging

import jax
import pytest
import tiny

from hamjepa_jax import build, config
from hamjepa_jax.aot import chips
from hamjepa_jax.aot.compile import tpu_devices
from hamjepa_jax.data import ShapeSplit, Source, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.workdirs import fresh_state, write_workdir
from hamjepa_jax.run.setup import set_up
from hamjepa_jax.run.workdir import claim, saved_config, with_own_dtype
from hamjepa_jax.train import train, train_seeds


@pytest.fixture
def auto():
    config = tiny.quick()
    config.encoder.dtype = "auto"
    return config


def lowered(setup):
    store, batch = setup.inputs.abstract()
    return jax.jit(setup.training.step).lower(setup.abstract, store, batch).as_text()


@pytest.mark.parametrize("platform, dtype", [("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")])
def test_the_platform_chooses_unless_the_config_does(platform, dtype, auto):
    assert config.default_config().encoder.dtype == "auto"
    assert build.encoder_dtype(auto, platform) == dtype
    for own in ("float32", "bfloat16"):
        auto.encoder.dtype = own
        assert build.encoder_dtype(auto, platform) == own


def test_training_on_cpus_is_in_float32_and_says_so_once(auto, caplog):
    with caplog.at_level(logging.INFO):
        setup = set_up(auto)
    assert setup.config.encoder.dtype == "float32" and auto.encoder.dtype == "auto"
    assert "bf16" not in lowered(setup)
    assert caplog.text.count("the encoder computes in float32 (encoder.dtype='auto'; CPUs emulate bfloat16") == 1
    auto.encoder.dtype = "bfloat16"
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert "bf16" in lowered(set_up(auto))
    assert "the encoder computes" not in caplog.text


def test_a_program_for_tpus_is_in_bfloat16_on_any_host(auto):
    pytest.importorskip("libtpu")
    source = Source("none", train=ShapeSplit(96, 8, 8), test=ShapeSplit(1, 8, 8))
    setup = set_up(auto, source=source, devices=tpu_devices(chips.slices("v5e:1x1")[0]))
    assert setup.config.encoder.dtype == "bfloat16" and "bf16" in lowered(setup)


def test_a_run_keeps_the_type_that_it_began_with(auto, tmp_path):
    auto.train.steps, auto.evaluate.every, auto.evaluate.probe.epochs = 3, "", 0
    train(auto, tmp_path / "run")
    assert saved_config(tmp_path / "run").encoder.dtype == "float32"
    # As a GPU or an earlier version would have begun it:
    file = tmp_path / "run" / "config.json"
    record = json.loads(file.read_text())
    record["config"]["encoder"]["dtype"] = "bfloat16"
    file.write_text(json.dumps(record))
    before = file.read_text()
    assert train(auto, tmp_path / "run")["step"] == 3 and file.read_text() == before
    assert with_own_dtype(auto, [tmp_path / "none", tmp_path / "run"]).encoder.dtype == "bfloat16"
    auto.encoder.dtype = "float32"
    with pytest.raises(UserError, match=r"encoder\.dtype: 'bfloat16' → 'float32'"):
        train(auto, tmp_path / "run")


def test_several_seeds_at_once_have_one_type_that_each_workdir_records(auto, tmp_path):
    auto.train.steps, auto.evaluate.every, auto.optimizer.warmup = 2, "", "1 steps"
    configs = [auto.copy_and_resolve_references() for _ in range(2)]
    configs[1].seed = 1
    workdirs = [tmp_path / "0", tmp_path / "1"]
    assert train_seeds(configs, workdirs, open_source(auto.data.source))
    assert [saved_config(workdir).encoder.dtype for workdir in workdirs] == ["float32"] * 2


def test_weights_from_elsewhere_get_the_type_of_their_first_training(auto, tmp_path):
    write_workdir(tmp_path / "run", auto, fresh_state(auto), {"file": "none"})
    assert saved_config(tmp_path / "run").encoder.dtype == "auto"
    given = auto.copy_and_resolve_references()
    given.encoder.dtype = "bfloat16"
    with claim(tmp_path / "run", given, "aa"):
        pass
    assert saved_config(tmp_path / "run").encoder.dtype == "bfloat16"
    assert json.loads((tmp_path / "run" / "config.json").read_text())["origin"] == {"file": "none"}
    given.encoder.dtype = "float32"
    with pytest.raises(UserError, match=r"encoder\.dtype"), claim(tmp_path / "run", given, "aa"):
        pass


def test_configs_with_and_without_a_decided_type_are_one_run(auto):
    given = tiny.quick()
    assert config.differing_fields(given, auto) == config.differing_fields(auto, given) == []
    given.encoder.dtype, auto.encoder.dtype = "bfloat16", "float32"
    assert config.differing_fields(given, auto) == ["encoder.dtype: 'bfloat16' → 'float32'"]
