"""Compiles the training step of a config for a slice of TPU chips, on any machine, and costs it."""

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from jax.experimental import topologies

from hamjepa_jax.aot.array import find_convolutions, total_flops
from hamjepa_jax.aot.chips import GIB, Slice, accepted
from hamjepa_jax.aot.collectives import find_collectives
from hamjepa_jax.aot.cost import step_time
from hamjepa_jax.aot.hlo import parse
from hamjepa_jax.aot.report import StepReport
from hamjepa_jax.aot.traffic import count_traffic
from hamjepa_jax.data import ShapeSplit, Source, frames_of, is_encoded, open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.run.setup import abstract_seed, compiled, lower_step, set_up

CIFAR100 = (50_000, 32, 32)  # Known without fetching the archive.


def compile_report(
    config: ml_collections.ConfigDict, shape: tuple[int, int, int], devices: Sequence[Any], on: Slice
) -> StepReport:
    """Compiles the training step of a config for `devices` and costs it as one of the slice `on`.

    Args:
      config: of the run; train.steps_per_dispatch is taken as 1.
      shape: (n, height, width) of the training images as they are stored.
      devices: as many as `on` has chips; they need not be there (`tpu_devices`).
      on: the slice whose memory and rates count.

    Raises:
      UserError: for settings that cannot work, or a step that does not fit a chip's memory.
    """
    config = config.copy_and_resolve_references()
    config.train.steps_per_dispatch = 1
    # The test images play no part in a step: they are as the evaluation wants them.
    size = config.data.image_size
    source = Source(config.data.source, train=ShapeSplit(*shape), test=ShapeSplit(1, size, size))
    setup = set_up(config, source=source, devices=devices)
    store, batch = setup.inputs.abstract()
    try:
        step = compiled(lower_step(setup, store, batch))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise _does_not_fit(on, _first_size(str(error))) from None
    program = parse(step.as_text())
    found, traffic = find_collectives(program, len(devices)), count_traffic(program)
    convolutions = find_convolutions(program)
    flops = total_flops(step.cost_analysis()["flops"], convolutions, config.train.accumulation)
    report = StepReport(
        topology=on.name,
        chips=on.size,
        batch_size=config.train.batch_size,
        memory=_memory(
            step, {"state": setup.abstract, "images": store, "batch": (abstract_seed(setup.mesh), batch)}
        ),
        hbm=on.chip.hbm,
        flops=flops,
        traffic=traffic,
        collectives=found,
        time=step_time(flops, program, convolutions, traffic, found, on),
    )
    if report.memory_total > report.hbm:
        raise _does_not_fit(on, report.memory_total)
    return report


def _memory(step: jax.stages.Compiled, arguments: dict[str, Any]) -> dict[str, int]:
    """`StepReport.memory` of a compiled step with these arguments, shapes with shardings."""
    analysis = step.memory_analysis()
    sizes = {name: _bytes_on_a_device(tree) for name, tree in arguments.items()}
    return sizes | {
        "padding": analysis.argument_size_in_bytes - sum(sizes.values()),
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "program": analysis.generated_code_size_in_bytes,
    }


def _does_not_fit(on: Slice, needed: float) -> UserError:
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


def tpu_devices(on: Slice) -> Sequence[Any]:
    """The devices of a slice, one a chip, to compile for.

    Raises:
      UserError: without libtpu, or for a slice that it does not know.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("--topology: compiling for TPUs needs libtpu; pip install 'hamjepa-jax[tpu]'.")
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
    if c.source.partition(":")[0] == "cifar100" and num_train is None:
        return CIFAR100
    if num_train is None:
        try:
            train = open_source(c.source, loader=c.loader).train
        except UserError as error:
            raise UserError(f"{error} Or give --num_train=N: no image is needed here.") from None
        if frames_of(train) is not None:
            raise UserError(f"data.source {c.source!r}: has clips; programs of images alone are compiled here.")
        if not is_encoded(train):
            return train.images.shape[:3]
        num_train = len(train)
    side = c.stored_size or c.image_size
    return num_train, side, side
