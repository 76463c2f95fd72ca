"""The training step compiled ahead of time for TPUs, on any machine: no TPU and no images are needed.

python -m hamjepa_jax.aot --config=configs/NAME.py --topology=v5e:4x4                    memory, FLOPs, collectives
python -m hamjepa_jax.aot --config=configs/NAME.py --topology=v4,v5e --per_chip_batch=N  a table: weak scaling
"""

import collections
import importlib.util
import math
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
from absl import app, flags, logging
from jax.experimental import topologies

from hamjepa_jax import build, scaling
from hamjepa_jax import config as config_lib
from hamjepa_jax.command_line import write_json
from hamjepa_jax.data import is_encoded, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.inputs import abstract_inputs, views_for
from hamjepa_jax.main import CONFIG, parse_flags
from hamjepa_jax.restore import initial_state
from hamjepa_jax.scaling.chips import GIB, accepted
from hamjepa_jax.train import compile_step
from hamjepa_jax.training.mesh import make_mesh
from hamjepa_jax.training.workdir import environment

TOPOLOGY = flags.DEFINE_multi_string(
    "topology", [], "TPU slices, with commas between: v5e:4x4, or v5e for all of its slices up to 256 chips."
)
PER_CHIP_BATCH = flags.DEFINE_integer(
    "per_chip_batch", None, "Examples per chip, in place of train.batch_size for all.", lower_bound=1
)
NUM_TRAIN = flags.DEFINE_integer(
    "num_train", None, "Training images, where data.source is not to be opened for their number.", lower_bound=1
)
JSON = flags.DEFINE_string("json", None, "File for the numbers.")

CIFAR100 = (50_000, 32, 32)  # Known without fetching the archive.


class StepReport(NamedTuple):
    """Cost of a compiled step.

    Attributes:
      topology: name of the slice.
      chips: their number.
      batch_size: global.
      memory: bytes on each chip: "state", "images" and "batch" (the step's arguments), "padding" (of their
        layouts), "outputs" (that reuse no argument's memory), "temporaries", "program".
      hbm: bytes that a chip has.
      flops, hbm_bytes: of one step on each chip, by XLA's count.
      collectives: of one step.
      time: predicted.
    """

    topology: str
    chips: int
    batch_size: int
    memory: dict[str, int]
    hbm: float
    flops: float
    hbm_bytes: float
    collectives: list[scaling.Collective]
    time: scaling.StepTime

    @property
    def memory_total(self) -> int:
        return sum(self.memory.values())


def compile_report(
    config: ml_collections.ConfigDict, shape: tuple[int, int, int], devices: Sequence[Any], on: scaling.Slice
) -> StepReport:
    """Compiles the training step of a config for `devices` and costs it as one of the slice `on`.

    Args:
      config: of the run; train.steps_per_dispatch is taken as 1.
      shape: (n, height, width) of the training images as they are stored.
      devices: as many as `on` has chips; they need not be there (`tpu_devices`).
      on: whose memory and rates count.

    Raises:
      UserError: for settings that cannot work, or a step that does not fit a chip's memory.
    """
    config = config.copy_and_resolve_references()
    config.train.steps_per_dispatch = 1
    config_lib.validate(config, len(devices))
    config_lib.validate_durations(config, shape[0])
    mesh = make_mesh(config.mesh.fsdp, devices)
    model = build.build_model(config)
    training = build.build_training(config, model, shape[0], mesh, views=views_for(config, mesh))
    state, _ = initial_state(config, training, mesh)
    store, batch = abstract_inputs(config, shape, mesh)
    try:
        step = compile_step(training, mesh, state, store, batch)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _does_not_fit(on, _first_size(str(error))) from None
    analysis, cost = step.memory_analysis(), step.cost_analysis()
    arguments = {name: _bytes_on_a_device(x) for name, x in (("state", state), ("images", store), ("batch", batch))}
    memory = arguments | {
        "padding": analysis.argument_size_in_bytes - sum(arguments.values()),
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "program": analysis.generated_code_size_in_bytes,
    }
    # XLA counts what is in a loop once. All but the update is in that over micro-batches.
    flops, hbm_bytes = (config.train.accumulation * cost[name] for name in ("flops", "bytes accessed"))
    found = scaling.find_collectives(step.as_text(), len(devices))
    report = StepReport(
        topology=on.name,
        chips=on.size,
        batch_size=config.train.batch_size,
        memory=memory,
        hbm=on.chip.hbm,
        flops=flops,
        hbm_bytes=hbm_bytes,
        collectives=found,
        time=scaling.step_time(flops, hbm_bytes, found, on),
    )
    if report.memory_total > report.hbm:
        raise _does_not_fit(on, report.memory_total)
    return report


def _does_not_fit(on: scaling.Slice, needed: float) -> UserError:
    return UserError(
        f"--topology {on.name}: the step takes {needed / GIB:.2f} GiB on each chip, which has "
        f"{on.chip.hbm / GIB:.2f}; use more chips, fewer images per chip (train.batch_size), train.accumulation, "
        f"mesh.fsdp or data.store='stream'."
    )


def _first_size(message: str) -> float:
    """Bytes of the first size in a message, as in "temporaries (1.20T) exceeds available HBM (15.75G)"."""
    number, unit = re.search(r"([\d.]+)([KMGT])\b", message).groups()
    return float(number) * 2 ** (10 * (1 + "KMGT".index(unit)))


def _bytes_on_a_device(tree: Any) -> int:
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def tpu_devices(on: scaling.Slice) -> Sequence[Any]:
    """The devices of a slice, one a chip, to compile for.

    Raises:
      UserError: without libtpu, or for a slice that it does not know.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("--topology: compiling for TPUs needs libtpu; install it with pip install '.[tpu]'.")
    # No metadata server is asked, and other processes may use libtpu at the same time.
    os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")
    for name, value in (("TPU_WORKER_HOSTNAMES", "localhost"), ("TPU_ACCELERATOR_TYPE", "v5litepod-1")):
        os.environ.setdefault(name, value)  # Else libtpu warns that it knows neither; the slice is given below.
    options: dict[str, Any] = {}
    if on.kind == "v4":
        options["chip_config_name"] = "megacore"  # A chip's two cores as one device, as on Cloud TPUs.
    if on.size < 4:  # Hosts have 4 chips unless told otherwise.
        options["chips_per_host_bounds"] = on.shape + (1,) * (3 - len(on.shape))
    try:
        return topologies.get_topology_desc(on.name, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--topology {on.name}: libtpu has no such slice ({reason}); {accepted()}.") from None


def stored_shape(config: ml_collections.ConfigDict, num_train: int | None) -> tuple[int, int, int]:
    """(n, height, width) of the training images as config.data.store keeps them.

    Args:
      config: of the run.
      num_train: n, of images that are square with data.stored_size or, if that is not set, data.image_size pixels a
        side; None: as data.source has them, which is opened unless it is CIFAR-100.

    Raises:
      UserError: if the source cannot be opened.
    """
    c = config.data
    if c.source.startswith("cifar100") and num_train is None:
        return CIFAR100
    if num_train is None:
        try:
            train = open_source(c.source, loader=c.loader).train
        except UserError as error:
            raise UserError(f"{error} Or give --num_train=N: no image is needed here.") from None
        if not is_encoded(train):
            return train.images.shape[:3]
        num_train = len(train)
    side = c.stored_size or c.image_size
    return num_train, side, side


def describe(report: StepReport) -> str:
    """The report of one slice as text."""
    lines = [
        f"{report.topology}: {report.chips} chips, {report.batch_size // report.chips} of {report.batch_size} "
        f"examples on each",
        "",
        f"{'memory on each chip':<24}{'MB':>12}",
    ]
    lines += [f"  {name:<22}{size / 1e6:>12,.1f}" for name, size in report.memory.items()]
    share = report.memory_total / report.hbm
    lines += [
        f"  {'all':<22}{report.memory_total / 1e6:>12,.1f}  {share:.1%} of {report.hbm / GIB:.2f} GiB",
        "",
        f"a step on each chip: {report.flops / 1e9:,.1f} GFLOP, {report.hbm_bytes / 1e9:,.2f} GB of memory traffic",
        "",
        f"{'collectives':<24}{'number':>8}{'MB':>12}  largest",
    ]
    for kind in scaling.KINDS:
        found = [c for c in report.collectives if c.kind == kind]
        if found:
            largest = max(found, key=lambda c: c.bytes * c.times)
            total = sum(c.bytes * c.times for c in found)
            lines.append(f"  {kind:<22}{sum(c.times for c in found):>8}{total / 1e6:>12,.2f}  {largest.source}")
    t = report.time
    lines += [
        "",
        f"predicted: {t.total * 1e3:.2f} ms a step at peak rates, {report.batch_size / t.total:,.0f} images/s; the "
        f"longer of {t.compute * 1e3:.2f} ms (arithmetic) and {t.memory * 1e3:.2f} ms (memory), and "
        f"{t.links * 1e3:.2f} ms (collectives)",
    ]
    return "\n".join(lines)


HEADER = """\
| slice | batch | memory a chip | GFLOP a chip | traffic a chip | collectives | arithmetic | traffic | links | step | efficiency |
|---|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501


def table_row(report: StepReport, base: StepReport) -> str:
    """A line of the table; efficiency is in images/s a chip, beside `base`'s."""
    t, speeds = report.time, [r.batch_size / r.chips / r.time.total for r in (report, base)]
    number = sum(c.times for c in report.collectives)
    exchanged = sum(c.bytes * c.times for c in report.collectives)
    cells = [
        report.topology,
        f"{report.batch_size:,}",
        f"{report.memory_total / 1e9:.2f} GB",
        f"{report.flops / 1e9:,.0f}",
        f"{report.hbm_bytes / 1e9:.1f} GB",
        f"{number}, {exchanged / 1e6:,.1f} MB",
        *(f"{seconds * 1e3:.2f} ms" for seconds in (t.compute, t.memory, t.links, t.total)),
        f"{speeds[0] / speeds[1]:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def run(config: ml_collections.ConfigDict, slices: list[scaling.Slice]) -> None:
    """Compiles for each slice and prints; refuses at the end what does not fit."""
    shape, reports, refused = stored_shape(config, NUM_TRAIN.value), [], []
    if len(slices) > 1:
        print(HEADER)
    for on in slices:
        devices = tpu_devices(on)
        if PER_CHIP_BATCH.value is not None:
            config.train.batch_size = PER_CHIP_BATCH.value * on.size
        try:
            report = compile_report(config, shape, devices, on)
        except UserError as error:
            refused.append(str(error))
            continue
        reports.append(report)
        base = next(r for r in reports if r.topology.startswith(on.kind))
        print(describe(report) if len(slices) == 1 else table_row(report, base), flush=True)
        if JSON.value:
            write_json(pathlib.Path(JSON.value), environment() | {"reports": [_as_json(r) for r in reports]})
    if refused:
        raise UserError("\n".join(refused))


def _as_json(report: StepReport) -> dict:
    by_kind = collections.defaultdict(lambda: {"number": 0, "bytes": 0})
    for c in report.collectives:
        by_kind[c.kind]["number"] += c.times
        by_kind[c.kind]["bytes"] += c.bytes * c.times
    seconds = report.time._asdict() | {"total": report.time.total}
    return report._asdict() | {"collectives": by_kind, "time": seconds}


def main(argv: list[str]) -> int:
    logging.set_verbosity(logging.WARNING)
    jax.config.update("jax_platforms", "cpu")  # Before JAX looks for devices: none of this machine's is used.
    try:
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}: every setting is a flag, --name=value.")
        if CONFIG.value is None:
            raise UserError("--config is missing: name a file, as in --config=configs/cifar100.py.")
        names = [name for text in TOPOLOGY.value for name in text.split(",") if name]
        if not names:
            raise UserError(f"--topology is missing: {accepted()}.")
        run(CONFIG.value, scaling.parse_slices(names))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
