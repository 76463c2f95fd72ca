"""The training step compiled ahead of time for TPUs, on any machine: no TPU and no images are needed.

python -m hamjepa_jax.aot --config=configs/NAME.py --topology=v5e:4x4                    memory, FLOPs, collectives
python -m hamjepa_jax.aot --config=configs/NAME.py --topology=v4,v5e --per_chip_batch=N  a table: weak scaling
"""

import argparse
import contextlib
import importlib.metadata
import sys

from hamjepa_jax import files
from hamjepa_jax.aot.chips import accepted, parse_slices
from hamjepa_jax.aot.report import as_json, describe
from hamjepa_jax.cli.parser import Parser, list_of, read_config, run_command, whole_number
from hamjepa_jax.cli.terminal import quiet_libraries
from hamjepa_jax.errors import UserError
from hamjepa_jax.report.scaling import SCALING_HEADER, base_of, scaling_row


def main(argv: list[str] | None = None) -> int:
    return run_command(run, make_parser(), argv)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.aot",
        description="Compiles the training step for slices of TPU chips on any machine, and prints memory, FLOPs, "
        "collectives and the predicted time. Several slices make a table.",
    )
    parser.add_config()
    parser.add_argument(
        "--topology",
        type=list_of(str),
        action="extend",
        default=[],
        metavar="SLICE,…",
        help="TPU slices, as v5e:4x4, or v5e for all of its slices up to 256 chips; can be repeated",
    )
    parser.add_argument(
        "--per_chip_batch",
        type=whole_number(1),
        metavar="N",
        help="examples per chip, in place of train.batch_size for all",
    )
    parser.add_argument(
        "--num_train",
        type=whole_number(1),
        metavar="N",
        help="training images, where data.source is not to be opened for their number",
    )
    parser.add_output_file("--json", metavar="FILE", help="file for the numbers")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Compiles for each slice and prints; refuses at the end the slices that are too small."""
    quiet_libraries()
    config = read_config(arguments)
    if not arguments.topology:
        raise UserError(f"--topology is missing: {accepted()}.")
    slices = parse_slices(arguments.topology)
    # Imported late: flags and their mistakes need no JAX.
    import jax

    jax.config.update("jax_platforms", "cpu")  # Before JAX looks for devices: none of this machine's is used.
    from hamjepa_jax.aot.compile import compile_report, stored_shape, tpu_devices

    made, shape = made_with(), stored_shape(config, arguments.num_train)
    reports: list[dict] = []
    refused = []
    if len(slices) > 1:
        print(SCALING_HEADER)
    for on in slices:
        devices = tpu_devices(on)
        if arguments.per_chip_batch is not None:
            config.train.batch_size = arguments.per_chip_batch * on.size
        try:
            step = compile_report(config, shape, devices, on)
        except UserError as error:
            refused.append(str(error))
            continue
        reports.append(report := as_json(step))
        print(describe(step) if len(slices) == 1 else scaling_row(report, base_of(report, reports)), flush=True)
        if arguments.json is not None:
            files.write_json(arguments.json, made | {"reports": reports})
    if refused:
        raise UserError("\n".join(refused))


def made_with() -> dict:
    """`environment` with the version of the TPUs' library."""
    from hamjepa_jax.run.workdir import environment

    made = environment()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # `tpu_devices` says so.
        made["versions"]["libtpu"] = importlib.metadata.version("libtpu")
    return made


if __name__ == "__main__":
    sys.exit(main())
