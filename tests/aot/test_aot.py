"""The training step compiled ahead of time: what is reported of it, and what is refused."""

import contextlib
import importlib.util
import json
import math
import pathlib
import re
import subprocess
import sys

import jax
import pytest
import tiny

from hamjepa_jax.aot.__main__ import main
from hamjepa_jax.aot.chips import CHIPS, SLICES, Slice, parse_slices
from hamjepa_jax.aot.compile import compile_report, stored_shape, tpu_devices
from hamjepa_jax.aot.report import as_json, describe
from hamjepa_jax.errors import UserError
from hamjepa_jax.run.setup import set_up

ROOT = pathlib.Path(__file__).parents[2]
SHAPE = (96, 8, 8)  # of the tiny config's images
GRID = Slice("v5e", (2, 4))  # as many chips as there are devices here


ONE_CHIP = Slice("v5e", (1, 1))
HIDDEN = 1024  # of the potential: its kernels are then large enough to be split over "fsdp"


def wide_config():
    config = tiny.quick("hamjepa")
    config.predictor.hidden = HIDDEN
    return config


def report_of(config, on=GRID):
    return compile_report(config, SHAPE, jax.devices()[: on.size], on)


@pytest.fixture(scope="module")
def report():
    return report_of(wide_config())


@pytest.mark.parametrize("store, dispatch", [("device", 1), ("device", 3), ("host", 1), ("stream", 3)])
def test_abstract_inputs_are_those_that_are_opened(store, dispatch, tiny_config):
    config = tiny_config
    config.data.store, config.train.steps_per_dispatch, config.mesh.fsdp = store, dispatch, 2
    inputs = set_up(config).inputs
    opened = inputs.open()
    with contextlib.closing(opened.batches(0)) as batches:
        real = (opened.store, next(batches))
    abstract = inputs.abstract()
    assert jax.tree.structure(real) == jax.tree.structure(abstract)
    for x, expected in zip(jax.tree.leaves(real), jax.tree.leaves(abstract), strict=True):
        assert (x.shape, x.dtype) == (expected.shape, expected.dtype)
        assert x.sharding.is_equivalent_to(expected.sharding, x.ndim)


def test_what_is_reported_of_a_step(report):
    assert (report.topology, report.chips, report.batch_size) == ("v5e:2x4", 8, 16)
    # 96 images of 8×8×3 bytes and 16 indices of 4 bytes, over 8 devices; the seed on each.
    assert report.memory["images"] == 96 * 8 * 8 * 3 // 8 and report.memory["batch"] == 16 * 4 // 8 + 4
    assert report.memory_total == sum(report.memory.values()) > report.memory["state"]
    kinds = {c.kind for c in report.collectives}
    assert "all-reduce" in kinds and all(c.group == 8 for c in report.collectives)
    assert max(c.bytes for c in report.collectives) >= 4 * HIDDEN**2  # the gradients
    embeddings = 4 * 2 * 16 * 64  # bytes: 2 views of 16 examples, 64 numbers each
    gathered = [c.bytes for c in report.collectives if c.kind == "all-gather"]
    assert max(gathered) < embeddings  # Statistics of the whole batch need sums, not the batch itself.
    assert report.time.memory == sum(report.traffic.values()) / CHIPS["v5e"].hbm_bandwidth > 0
    assert report.time.compute == report.flops / CHIPS["v5e"].flops < report.time.array
    assert report.time.least <= report.time.most

    text = describe(report)
    assert "v5e:2x4: 8 chips, 2 of 16 examples on each" in text and "all-reduce" in text
    assert json.loads(json.dumps(as_json(report)))["collectives"]["all-reduce"]["number"] > 0


@pytest.mark.slow
def test_flops_are_those_of_one_chip(report):
    """With the same examples on each chip, a step does the same arithmetic on 1 chip and on 8."""
    config = wide_config()
    config.train.batch_size //= 8
    one = report_of(config, ONE_CHIP)
    assert one.flops == pytest.approx(report.flops, rel=0.1)
    assert one.collectives == []


@pytest.mark.slow
def test_flops_of_all_micro_batches_count(report):
    config = wide_config()
    config.train.accumulation = 2
    parts = report_of(config)
    assert parts.flops == pytest.approx(report.flops, rel=0.25)  # The update, no small part here, counts twice.


@pytest.mark.slow
def test_fsdp_divides_the_state_as_predicted(report):
    config = wide_config()
    config.mesh.fsdp = 8
    split = report_of(config)
    kernels = 4 * (32 * HIDDEN + HIDDEN**2)
    # The parameters and Adam's two moments, of which each device keeps an eighth.
    assert report.memory["state"] - split.memory["state"] == pytest.approx(3 * kernels * 7 / 8, rel=0.01)
    # What XLA takes for the arguments is what the shardings say.
    assert report.memory["padding"] == split.memory["padding"] == 0
    assert sum(c.bytes for c in split.collectives if c.kind == "all-gather") >= kernels


def test_a_step_that_does_not_fit_is_refused(monkeypatch):
    small = CHIPS["v5e"]._replace(hbm=1e5)
    monkeypatch.setitem(CHIPS, "v5e", small)
    with pytest.raises(
        UserError, match=r"v5e:2x4: the step takes .* GiB .*train\.accumulation, mesh\.fsdp"
    ) as info:
        report_of(wide_config())
    assert "\n" not in str(info.value)


def test_settings_that_do_not_fit_the_chips_are_refused(tiny_config):
    tiny_config.train.batch_size = 12
    with pytest.raises(UserError, match=r"train\.batch_size 12: not divisible by 8 devices"):
        report_of(tiny_config)


def test_number_and_size_of_images(tiny_config):
    assert stored_shape(tiny_config, None) == SHAPE
    assert stored_shape(tiny_config, 7) == (7, 8, 8)
    tiny_config.data.stored_size = 10
    assert stored_shape(tiny_config, 7) == (7, 10, 10)
    tiny_config.data.source = "cifar100:"
    assert stored_shape(tiny_config, None) == (50_000, 32, 32)
    tiny_config.data.source = "folder:nowhere"
    with pytest.raises(UserError, match="--num_train=N"):
        stored_shape(tiny_config, None)


def test_libtpu_is_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'hamjepa-jax\[tpu\]'"):
        tpu_devices(ONE_CHIP)


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "hamjepa_jax.aot", *arguments],
        cwd=ROOT, capture_output=True, text=True, **options,
    )  # fmt: skip


def test_a_wrong_command_ends_with_one_sentence(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for arguments, message in [
        (["--config=tests/tiny.py"], "--topology is missing: give a chip and its grid"),
        (["--config=tests/tiny.py", "--topology=v5e:4"], "--topology v5e:4: give a chip and its grid"),
    ]:
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"error: {message}") and told.count("\n") == 1


PLUGINS = ROOT / "tests" / "plugins"
NO_FLOW = ("objective.name=lejepa", "predictor.kind=identity")


@pytest.mark.parametrize(
    "plugin, fields",
    [
        ("toy_objective", ("objective.name=toy_matrix", "predictor.kind=identity")),
        ("toy_trunk", ("encoder.trunk=toy_transformer", "encoder.mode=global", "encoder.embed_dim=16", *NO_FLOW)),
        pytest.param("toy_source", ("data.source=toy_noise:96", *NO_FLOW), marks=pytest.mark.slow),
    ],
)
def test_a_plugin_s_part_is_compiled(plugin, fields, monkeypatch, tmp_path, capsys):
    """The command with a part of one's own; this machine's devices stand in for the slice's."""
    monkeypatch.setattr("hamjepa_jax.aot.compile.tpu_devices", lambda on: jax.devices()[: on.size])
    file = tmp_path / "aot.json"
    settings = [f"--config.{field}" for field in (f"plugins={PLUGINS / plugin}.py", *fields)]
    assert main([f"--config={ROOT / 'tests' / 'tiny.py'}", "--topology=v5e:1x1", f"--json={file}", *settings]) == 0
    assert "v5e:1x1: 1 chips, 16 of 16 examples" in capsys.readouterr().out
    (report,) = json.loads(file.read_text())["reports"]
    assert report["flops"] > 0 and report["memory"]["images"] == 96 * 8 * 8 * 3


def test_only_the_archive_s_own_source_has_its_size(tiny_config):
    tiny_config.data.source = "cifar100_of_mine:here"
    with pytest.raises(UserError, match="cifar100_of_mine"):
        stored_shape(tiny_config, None)


needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


@needs_libtpu
def test_every_slice_can_be_had():
    names = [f"{kind}:{shape}" for kind, shapes in SLICES.items() for shape in shapes]
    for on in parse_slices(names):
        devices = tpu_devices(on)
        assert len(devices) == on.size == math.prod(on.shape), on.name
    with pytest.raises(UserError, match=r"v5e:3x3: libtpu has no such slice .*16x16"):
        tpu_devices(Slice("v5e", (3, 3)))


@pytest.mark.slow
@needs_libtpu
def test_a_step_compiles_for_tpus_or_is_refused_by_their_compiler(tmp_path):
    found = tmp_path / "report.json"
    result = command("--config=tests/tiny.py", "--topology=v5e:2x2", "--per_chip_batch=8", f"--json={found}")
    assert result.returncode == 0, result.stderr
    assert "v5e:2x2: 4 chips, 8 of 32 examples on each" in result.stdout
    (report,) = json.loads(found.read_text())["reports"]
    assert report["collectives"]["all-reduce"]["bytes"] > 0 and report["flops"] > 0
    huge = ["--config.data.image_size=1024", "--config.train.batch_size=2048", "--num_train=4096"]
    result = command("--config=tests/tiny.py", "--topology=v5e:1x1", "--config.data.store=stream", *huge)
    assert result.returncode == 2
    assert re.match(r"error: --topology v5e:1x1: the step takes \d{3,}\.\d+ GiB on each chip.*\n$", result.stderr)
