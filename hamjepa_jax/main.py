"""The command python -m hamjepa_jax.main: trains a config in a workdir, goes on with it, or evaluates it again."""

import sys

from hamjepa_jax.cli import interrupt

if __name__ == "__main__":
    interrupt.end_at_once_on_ctrl_c()  # First, since imports take seconds.

import argparse
import os

from hamjepa_jax.cli import terminal
from hamjepa_jax.cli.parser import Parser, run_command
from hamjepa_jax.errors import UserError
from hamjepa_jax.run import distributed


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.main",
        description="Trains, checkpoints and evaluates; the same command again goes on exactly where the run was. "
        "python -m hamjepa_jax.config lists the fields that --config.FIELD=VALUE can set.",
    )
    parser.add_config()
    add = parser.add_argument
    parser.add_path("--workdir", metavar="DIR", help="folder of the run: checkpoints, logs, plots and results")
    add("--mode", choices=("train", "evaluate"), default="train", help="train (or go on), or evaluate a workdir")
    add("--step", type=int, metavar="N", help="checkpoint to evaluate; the newest if not given")
    add("--profile", metavar="START:STEPS", help="trace these training steps into WORKDIR/profile")
    add("--verbose", action="store_true", help="show every metric, and the table of parameters")
    add("--debug_nans", action="store_true", help="slower: name the first value that is not finite")
    add("--distributed", choices=distributed.CLUSTERS, default="auto", help="how the processes of a run find "
        "each other: auto (the three flags below, a SLURM job step, or the host names of a TPU slice), tpu (the "
        "metadata of a TPU virtual machine), off")  # fmt: skip
    add("--coordinator", metavar="HOST:PORT", help="address of process 0, the same on all")
    add("--num_processes", type=int, metavar="N", help="processes of the run")
    add("--process_id", type=int, metavar="I", help="which of them this is, from 0")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Trains or evaluates as the flags say."""
    _check(arguments)
    terminal.show_details(arguments.verbose)
    process = distributed.join(
        os.environ,
        cluster=arguments.distributed,
        coordinator=arguments.coordinator,
        num_processes=arguments.num_processes,
        process_id=arguments.process_id,
    )
    if process > 0:
        terminal.keep_library_output_in(arguments.workdir / "logs" / f"libraries_{process}.log")
    # Imported late: a mistake in the flags needs no JAX.
    from hamjepa_jax import config as config_lib
    from hamjepa_jax.run.profile import parse_window
    from hamjepa_jax.run.workdir import CONFIG_FILE, saved_config

    workdir = arguments.workdir
    profile = None if arguments.profile is None else parse_window(arguments.profile)
    if arguments.config is not None:
        config = config_lib.configure(arguments.config, arguments.overrides)
    elif arguments.mode == "evaluate" or (workdir / CONFIG_FILE).exists():  # The run goes on as it was begun.
        config = saved_config(workdir)
    else:
        raise UserError("--config is missing: name one, as in --config=quickstart, or a file.")
    if arguments.mode == "evaluate":
        from hamjepa_jax.evaluate import evaluate

        evaluate(config, workdir, step=arguments.step)
    else:
        from hamjepa_jax.train import train

        train(config, workdir, profile=profile, debug_nans=arguments.debug_nans)


def _check(arguments: argparse.Namespace) -> None:
    """Refuses a missing workdir, and flags that the mode would ignore."""
    if arguments.workdir is None:
        raise UserError("--workdir is missing: name the folder of the run, as in --workdir=runs/first.")
    if arguments.mode == "train" and arguments.step is not None:
        raise UserError(
            f"--step={arguments.step}: training goes on from the newest checkpoint; leave the flag out, or give "
            f"--mode=evaluate."
        )
    for flag in ("profile", "debug_nans"):
        if arguments.mode == "evaluate" and getattr(arguments, flag):
            raise UserError(f"--{flag}: is about training steps; --mode=evaluate takes none, so leave it out.")


def main(argv: list[str] | None = None) -> int:
    """Runs the command; a mistake, a lost process and a failing disk are one sentence each."""
    return distributed.leave_with(lambda: run_command(run, make_parser(), argv))


if __name__ == "__main__":
    terminal.log_to_terminal()
    sys.exit(main())
