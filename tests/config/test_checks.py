"""Config arguments, durations, and the refusal of what cannot work."""

import json

import numpy as np
import pytest
from flax import linen

from hamjepa_jax import build, evaluation, parts
from hamjepa_jax import config as config_lib
from hamjepa_jax.errors import UserError


def test_arguments_of_a_config_file():
    arg = config_lib.parse_arg("epochs=80,source=arrays:a.npz", epochs=30, source="digits", scale=0.5)
    assert (arg.epochs, arg.source, arg.scale) == (80, "arrays:a.npz", 0.5)
    assert config_lib.parse_arg(None, epochs=30).epochs == 30
    with pytest.raises(UserError, match=r"epoch=80.*epochs=…"):
        config_lib.parse_arg("epoch=80", epochs=30)
    with pytest.raises(UserError, match="epochs must be of type int"):
        config_lib.parse_arg("epochs=many", epochs=30)


@pytest.mark.parametrize(
    "text, steps",
    [("10 epochs", 70), ("1 epoch", 7), ("0.5 epochs", 4), ("500 steps", 500), ("5%", 10), ("0 steps", 0)],
)
def test_durations(text, steps):
    assert config_lib.duration_steps("field", text, steps_per_epoch=7, total_steps=200) == steps


@pytest.mark.parametrize("text", ["10", "ten epochs", "10 weeks", "-1 steps", "nan epochs", "inf steps", ""])
def test_bad_durations_name_the_field(text):
    with pytest.raises(UserError, match=r"log\.every"):
        config_lib.duration_steps("log.every", text, steps_per_epoch=7, total_steps=200)


BAD = {
    "stored size": (
        {"data.stored_size": 0},
        r"data\.stored_size 0: must be a whole number between 4 and 16384, or None",
    ),
    "square larger than the image": ({"data.eval_resize": 6}, r"data\.eval_resize 6.*data\.image_size 8.*None"),
    "budget": ({"data.memory_budget_gb": -1.0}, r"data\.memory_budget_gb -1\.0: must be a number above 0"),
    "share of broken images": ({"data.max_broken_share": 2.0}, r"data\.max_broken_share 2\.0.*between 0 and 1"),
    "loader": ({"data.loader": "torch"}, r"data\.loader 'torch'.*grain, tfdata"),
    "processes of tf.data": (
        {"data.loader": "tfdata", "data.num_workers": 2},
        r"data\.num_workers 2.*'tfdata' decodes in threads; set it to 0",
    ),
    "odd token channels": ({"encoder.token_dim": 3}, r"encoder\.token_dim 3.*even.*split_qp=False"),
    "projector with q/p": ({"encoder.projector": "mlp"}, r"encoder\.projector 'mlp'.*identity"),
    "embedding size": ({"encoder.embed_dim": 100}, r"encoder\.embed_dim 100.*64"),
    "unknown name": (
        {"predictor.energy": "kinetic"},
        r"predictor\.energy 'kinetic'.*separable, quadratic, general",
    ),
    "no split": ({"encoder.split_qp": False}, r"encoder\.split_qp False.*True"),
    "even kernel": ({"views.blur_kernel": 4}, r"views\.blur_kernel 4.*odd.*5"),
    "probability": ({"views.flip_prob": 1.5}, r"views\.flip_prob 1\.5.*between 0 and 1"),
    "scale": ({"views.global_scale": (0.5, 2.0)}, r"views\.global_scale \(0\.5, 2\.0\).*of at most 1"),
    "one view": ({"views.num_global": 1}, r"views\.num_global 1.*two"),
    "one view of LeJEPA": (
        {"views.num_global": 1, "objective.name": "lejepa", "predictor.kind": "identity"},
        r"views\.num_global 1.*'lejepa'.*two",
    ),
    "one image of SimCLR": (
        {"train.batch_size": 4, "train.accumulation": 4, "objective.name": "simclr", "predictor.kind": "identity"},
        r"train\.batch_size 4: .*'simclr' needs \(micro-\)batches of 2 or more; .*use at least 8",
    ),
    "kernel of a small view": ({"views.blur_kernel": 17}, r"views\.blur_kernel 17.*image_size 8 .*at most 15"),
    "kernel of a small local view": (
        {"views.blur_kernel": 9, "views.num_local": 1, "views.local_size": 4, "encoder.token_hw": 2},
        r"views\.blur_kernel 9.*local_size 4 .*at most 7",
    ),
    "local grid": ({"views.num_local": 2, "views.local_size": 4}, r"views\.local_size 4.*encoder\.token_hw=4"),
    "global without size": ({"encoder.mode": "global"}, r"encoder\.embed_dim.*N"),
    "predictor for lejepa": ({"objective.name": "lejepa"}, r"predictor\.kind 'hamiltonian'.*identity"),
    "energy of an MLP": (
        {"predictor.kind": "mlp", "objective.hamjepa.energy_weight": 0.1},
        r"energy_weight 0\.1.*no energy; set it to 0, or predictor\.kind='hamiltonian'",
    ),
    "seed": ({"seed": -1}, r"seed -1: must be .*0"),
    "steps": ({"train.steps": 0}, r"train\.steps 0"),
    "clip": ({"optimizer.clip_norm": -1.0}, r"optimizer\.clip_norm -1\.0.*None"),
    "no tokens": ({"encoder.token_hw": 0}, r"encoder\.token_hw 0: .*between 1 and 1024, or None"),
    "width of the projector": ({"encoder.projector_dim": 0}, r"encoder\.projector_dim 0.*between 1 and"),
    "first average": ({"optimizer.b1": 1.0}, r"optimizer\.b1 1\.0.*below 1"),
    "second average": ({"optimizer.b2": -0.5}, r"optimizer\.b2 -0\.5.*at least 0"),
    "one in float32": ({"optimizer.b2": 1 - 1e-9}, r"optimizer\.b2 0\.999999999: .*below 1, in float32 too"),
    "zero in float32": ({"data.std": (1.0, 1e-300, 1.0)}, r"data\.std \(.*1e-300.*float32"),
    "endless in float32": ({"data.mean": (1e300, 0.0, 0.0)}, r"data\.mean \(1e\+300.*3\.4e\+38.*float32"),
    "epsilon": ({"optimizer.eps": -1.0}, r"optimizer\.eps -1\.0.*above 0"),
    "no epsilon, with which a gradient of zero moves by no number": (
        {"optimizer.eps": 0.0},
        r"optimizer\.eps 0\.0.*above 0",
    ),
    "no epsilon under HamJEPA's root": (
        {"objective.hamjepa.variance_eps": 0.0},
        r"hamjepa\.variance_eps 0\.0.*above 0",
    ),
    "rate that is no number": ({"optimizer.learning_rate": float("nan")}, r"optimizer\.learning_rate nan"),
    "endless rate": ({"optimizer.learning_rate": float("inf")}, r"optimizer\.learning_rate inf.*finite"),
    "rate of the predictor": (
        {"optimizer.predictor_learning_rate": float("nan")},
        r"optimizer\.predictor_learning_rate nan.*or None",
    ),
    "rate of the probe": ({"evaluate.probe.learning_rates": (1e-3, -1.0)}, r"learning_rates.*-1\.0.*above 0"),
    "nothing where a number must be": ({"optimizer.weight_decay": None}, r"optimizer\.weight_decay None"),
    "weight": ({"objective.hamjepa.budget_weight": -1.0}, r"hamjepa\.budget_weight -1\.0.*at least 0"),
    "epsilon of a floor": ({"objective.hamjepa.logdet_eps": -1e-4}, r"hamjepa\.logdet_eps -0\.0001"),
    "no ridge, whose collapse is no number": ({"objective.hamjepa.logdet_eps": 0.0}, r"logdet_eps 0\.0.*above 0"),
    "odd embedding": (
        {"encoder.mode": "global", "encoder.token_hw": None, "encoder.embed_dim": 33},
        r"encoder\.embed_dim 33.*make it even",
    ),
    "neighbours": ({"evaluate.ks": (1, 20.5)}, r"evaluate\.ks \(1, 20\.5\).*whole number"),
    "no flow to measure": (
        {"evaluate.flow": 4, "predictor.kind": "identity"},
        r"evaluate\.flow 4: predictor\.kind='identity' learns no flow to measure; set it to 0",
    ),
    "reference": ({"evaluate.references": ("random",)}, r"evaluate\.references \('random',\).*untrained, pixels"),
}


@pytest.mark.parametrize("case", BAD)
def test_impossible_settings_are_refused_with_field_and_remedy(case, tiny_config):
    changes, message = BAD[case]
    for field, value in changes.items():
        *path, name = field.split(".")
        block = tiny_config
        for part in path:
            block = block[part]
        block[name] = value
    with pytest.raises(UserError, match=message):
        build.check(tiny_config)


def test_a_batch_is_divisible_by_devices_and_micro_batches(tiny_config):
    config_lib.check_devices(tiny_config, 8)
    with pytest.raises(UserError, match=r"train\.batch_size 16: not divisible by 6 devices; use 12"):
        config_lib.check_devices(tiny_config, 6)
    tiny_config.train.accumulation = 3
    with pytest.raises(UserError, match=r"2 devices × 3 micro-batches; use 12"):
        config_lib.check_devices(tiny_config, 2)


def test_a_mesh_takes_all_devices(tiny_config):
    tiny_config.mesh.fsdp = 4
    config_lib.check_devices(tiny_config, 8)
    with pytest.raises(UserError, match=r"mesh\.fsdp 4: does not divide the 6 devices; use one of 1, 2, 3, 6"):
        config_lib.check_devices(tiny_config, 6)


def test_what_the_size_of_the_data_makes_impossible(tiny_config):
    config_lib.check_durations(tiny_config, 96)
    with pytest.raises(UserError, match=r"train\.batch_size 16.*only 15.*at most 15"):
        config_lib.check_durations(tiny_config, 15)
    tiny_config.optimizer.warmup = "2 epochs"
    with pytest.raises(UserError, match=r"optimizer\.warmup '2 epochs'.*12 steps.*12 training steps"):
        config_lib.check_durations(tiny_config, 96)
    tiny_config.optimizer.warmup = "0 steps"
    tiny_config.train.steps_per_dispatch = 5
    with pytest.raises(UserError, match=r"train\.steps_per_dispatch 5.*12"):
        config_lib.check_durations(tiny_config, 96)


@pytest.mark.parametrize("field", ["log", "checkpoint", "evaluate"])
@pytest.mark.parametrize("text", ["0 epochs", "1%"])  # of 12 steps
def test_what_recurs_does_so_after_a_step_at_least(text, field, tiny_config):
    tiny_config[field].every = text
    with pytest.raises(UserError, match=rf"{field}\.every '{text}': must be at least one step"):
        config_lib.check_durations(tiny_config, 96)
    tiny_config[field].every = "9%"
    config_lib.check_durations(tiny_config, 96)


def test_evaluation_may_be_left_to_the_end(tiny_config):
    tiny_config.evaluate.every = ""
    config_lib.check_durations(tiny_config, 96)


def test_images_of_another_size_need_a_resize(tiny_config):
    config_lib.check_images(tiny_config, (8, 8, 3))
    for shape in ((16, 16, 3), (8, 16, 3)):
        with pytest.raises(UserError, match=rf"{shape[0]}×{shape[1]} pixels.*data\.eval_resize=8"):
            config_lib.check_images(tiny_config, shape)
    tiny_config.data.eval_resize = 8
    config_lib.check_images(tiny_config, (8, 16, 3))


def test_tokens_that_repeat_each_other_come_with_a_warning(tiny_config):
    tiny_config.encoder.token_hw = 4  # as large as the trunk's map
    assert build.warnings(tiny_config) == []
    tiny_config.encoder.token_hw = 5
    (warning,) = build.warnings(tiny_config)
    assert "encoder.token_hw 5: the trunk's map of an image is 4×4" in warning


@pytest.mark.parametrize("split", [True, False])
def test_a_best_metric_that_no_evaluation_gives_comes_with_a_warning(split, tiny_config):
    def warned(name):
        tiny_config.checkpoint.best_metric = name
        return [text for text in config_lib.warnings(tiny_config) if "checkpoint.best_metric" in text]

    tiny_config.encoder.split_qp = split
    z, y = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), np.arange(40, dtype=np.int32) % 2
    measured = evaluation.evaluate_features(
        z, y, z, y, num_classes=2, split=split, ks=tiny_config.evaluate.ks, probe=None
    )
    assert not any(map(warned, measured))
    readout = "q" if split else "z"
    for what in ("knn_top1_k20_cosine_majority", "knn_top1_k5_cosin_majority", "probe_top1", "uniformity_views"):
        assert f"{readout}/{what}" not in measured
        (warning,) = warned(f"{readout}/{what}")
        assert f"{readout}/knn_top1_k1_cosine_majority" in warning
    assert warned("z/uniformity" if split else "q/uniformity")
    asked_for = (
        f"{readout}/lidar_n8_v4",
        f"{readout}/online_probe_top1",
        f"digits/{readout}/knn_top1_k1_cosine_majority",
    )
    assert all(map(warned, asked_for))
    tiny_config.evaluate.lidar.update(images=8, views=4)
    tiny_config.evaluate.online_probe.enabled, tiny_config.evaluate.probes = True, ("digits",)
    assert not any(map(warned, asked_for)) and warned(f"digits/{readout}/knn_top1_k9_cosine_majority")
    tiny_config.checkpoint.keep_best = 0
    assert not warned("nonsense")


def test_an_online_probe_that_nobody_hears_of_comes_with_a_warning(tiny_config):
    def warned(**changes):
        tiny_config.evaluate.online_probe.update(changes)
        return any("evaluate.online_probe.enabled True" in text for text in config_lib.warnings(tiny_config))

    assert not warned(enabled=True, log=False)
    tiny_config.evaluate.every = ""
    assert warned(enabled=True, log=False) and not warned(enabled=True, log=True) and not warned(enabled=False)


def test_a_run_may_go_on_with_other_devices_and_more_steps_at_once(tiny_config):
    saved = config_lib.from_saved(json.loads(tiny_config.to_json_best_effort()))
    tiny_config.train.steps_per_dispatch, tiny_config.mesh.fsdp = 3, 2
    assert config_lib.differing_fields(saved, tiny_config) == []
    tiny_config.train.accumulation = 2
    assert config_lib.differing_fields(saved, tiny_config) == ["train.accumulation: 1 → 2"]


def test_a_mistyped_key_or_type_is_refused_by_the_config_itself(tiny_config):
    with pytest.raises(AttributeError):
        tiny_config.optimizer.learning_rat = 0.1
    with pytest.raises(TypeError):
        tiny_config.train.batch_size = "many"


@pytest.mark.parametrize(
    "registry, facts, fields, message",
    [
        (
            parts.objectives,
            {"uses_predictor": True, "reads_qp": True},
            {"objective.name": "odd"},
            r"objective\.name 'odd': .* type NoneType; .* Objective",
        ),
        (parts.predictors, {"has_steps": True}, {"predictor.kind": "odd"}, r"predictor\.kind 'odd': .* Predictor"),
        (parts.trunks, {}, {"encoder.trunk": "odd"}, r"encoder\.trunk 'odd': .* Module"),
    ],
)
def test_a_part_that_makes_something_else_is_refused(registry, facts, fields, message, tiny_config):
    registry.register("odd", **facts)(lambda *a, **k: None)
    try:
        for field, value in fields.items():
            config_lib.set_field(tiny_config, field, value)
        with pytest.raises(UserError, match=message):
            build.check(tiny_config)
    finally:
        del registry._parts["odd"]


@pytest.mark.parametrize("made", ["vector", "integers", "nothing"])
def test_a_trunk_that_makes_no_map_is_refused(made, tiny_config):
    class Odd(linen.Module):
        def __call__(self, x, train):
            return {"vector": x.mean((1, 2)), "integers": x.astype(int), "nothing": None}[made]

    parts.trunks.register("odd")(lambda *a, **k: Odd())
    try:
        tiny_config.encoder.trunk = "odd"
        with pytest.raises(UserError, match=r"encoder\.trunk: .*must make a float map"):
            build.check(tiny_config)
    finally:
        del parts.trunks._parts["odd"]


def test_a_trunk_whose_parameters_depend_on_the_size_takes_no_smaller_local_views(tiny_config):
    class Mixing(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            return linen.Dense(x.shape[2])(x.swapaxes(2, 3)).swapaxes(2, 3)  # Along the columns.

    parts.trunks.register("mixing")(lambda *a, **k: Mixing())
    try:
        tiny_config.encoder.trunk, tiny_config.encoder.token_hw = "mixing", 2
        tiny_config.views.num_local, tiny_config.views.local_size = 1, 8
        build.check(tiny_config)
        tiny_config.views.local_size = 4
        with pytest.raises(UserError, match=r"views\.local_size 4: encoder\.trunk='mixing' has other parameters"):
            build.check(tiny_config)
    finally:
        del parts.trunks._parts["mixing"]
