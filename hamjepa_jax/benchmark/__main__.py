"""Speed on the machine at hand.

python -m hamjepa_jax.benchmark step --config=configs/NAME.py   the training step and its parts
    … --against_torch                                           the encoder of the step beside the same in PyTorch
python -m hamjepa_jax.benchmark objectives --config=…           every objective beside the config's encoder
python -m hamjepa_jax.benchmark loop --config=configs/NAME.py   the loop around the step
python -m hamjepa_jax.benchmark input DIR                       decoding and cropping the JPEGs of DIR
python -m hamjepa_jax.benchmark evaluation                      kNN and probe against scikit-learn
python -m hamjepa_jax.benchmark checkpoint --config=…           saving and restoring, and training meanwhile
"""

import argparse
import pathlib
import sys

from hamjepa_jax import files
from hamjepa_jax.cli.parser import Parser, read_config, run_command, whole_number
from hamjepa_jax.cli.terminal import log_to_terminal
from hamjepa_jax.errors import UserError

ROUNDS, EVALUATION_ROUNDS = 10, 3
# Benchmark -> the flags that it takes.
TAKES = {
    "step": {"config", "rounds", "against_torch", "json"},
    "objectives": {"config", "rounds", "json"},
    "loop": {"config", "json"},
    "checkpoint": {"config", "rounds", "workdir", "json"},
    "input": {"folder"},
    "evaluation": {"rounds", "json"},
}


def main(argv: list[str] | None = None) -> int:
    return run_command(run, make_parser(), argv)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.benchmark",
        description="Measures speed on this machine: step (the training step and its parts), objectives (every "
        "objective beside the config's encoder), loop (the host's time around the step), checkpoint (saving, "
        "restoring, and training meanwhile), input (decoding and cropping the JPEGs of DIR), evaluation (kNN and "
        "probe against scikit-learn).",
    )
    parser.add_argument("benchmark", nargs="?", metavar="BENCHMARK", help=f"one of {', '.join(TAKES)}")
    parser.add_path("folder", nargs="?", metavar="DIR", help="of `input`: folder of JPEGs")
    parser.add_config()
    parser.add_path("--workdir", metavar="DIR", help="of `checkpoint`: folder on the disk to measure")
    parser.add_argument(
        "--against_torch",
        action="store_const",
        const=True,
        help="of `step`: time the encoder beside the same network in PyTorch, on CPUs",
    )
    parser.add_argument(
        "--rounds",
        type=whole_number(1),
        metavar="N",
        help=f"of `step`, `objectives`, `checkpoint` ({ROUNDS} if not given) and `evaluation` "
        f"({EVALUATION_ROUNDS}): timed rounds; medians are printed",
    )
    parser.add_output_file(
        "--json",
        metavar="FILE",
        help="of `step`, `objectives`, `loop`, `evaluation` and `checkpoint`: file for the numbers",
    )
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Measures and prints.

    Raises:
      UserError: for flags that the benchmark does not take, and as the benchmark.
    """
    _check(arguments)
    # Imported late: flags and their mistakes need no JAX.
    if arguments.benchmark == "input":
        from hamjepa_jax.benchmark.input import benchmark_input

        print(benchmark_input(arguments.folder))
    elif arguments.benchmark == "evaluation":
        from hamjepa_jax.benchmark import evaluation

        rounds = arguments.rounds or EVALUATION_ROUNDS
        measured = evaluation.benchmark_evaluation(50_000, 5_000, 1024, 100, epochs=50, rounds=rounds)
        print(evaluation.describe(measured))
        _write(arguments.json, measured)
    elif arguments.against_torch:
        config = read_config(arguments)
        from hamjepa_jax.benchmark import against_torch

        found = against_torch.benchmark_against_torch(config, arguments.rounds or ROUNDS)
        print(against_torch.describe(found))
        _write(arguments.json, found.as_json())
    elif arguments.benchmark == "step":
        config = read_config(arguments)
        from hamjepa_jax.benchmark import step

        report = step.benchmark_step(config, arguments.rounds or ROUNDS)
        print(step.describe(report))
        _write(arguments.json, report._asdict())
    elif arguments.benchmark == "objectives":
        config = read_config(arguments)
        from hamjepa_jax.benchmark import objectives

        report = objectives.benchmark_objectives(config, arguments.rounds or ROUNDS)
        print(objectives.describe(report))
        _write(arguments.json, report._asdict())
    elif arguments.benchmark == "loop":
        config = read_config(arguments)
        from hamjepa_jax.benchmark import loop

        report = loop.benchmark_loop(config)
        print(loop.describe(report))
        _write(arguments.json, report._asdict())
    else:
        config = read_config(arguments)
        from hamjepa_jax.benchmark import checkpoint

        report = checkpoint.benchmark_checkpoint(config, arguments.rounds or ROUNDS, arguments.workdir)
        print(checkpoint.describe(report))
        _write(arguments.json, report._asdict())


def _write(file: pathlib.Path | None, numbers: dict) -> None:
    """Writes the numbers, and the machine they were measured on."""
    if file is not None:
        from hamjepa_jax.run.workdir import environment

        files.write_json(file, environment() | numbers)


def _check(arguments: argparse.Namespace) -> None:
    takes = TAKES.get(arguments.benchmark)
    if takes is None or ("folder" in takes and arguments.folder is None):
        raise UserError(
            "name a benchmark: step, objectives, loop or checkpoint --config=FILE, input DIR, or evaluation."
        )
    for name in sorted(set.union(*TAKES.values())):
        if name not in takes and getattr(arguments, name) is not None:
            shown = arguments.folder if name == "folder" else f"--{name}"
            raise UserError(f"{shown}: the benchmark {arguments.benchmark!r} does not use it; leave it out.")
    if arguments.workdir is not None:
        files.make_folder(arguments.workdir, "--workdir")


if __name__ == "__main__":
    log_to_terminal()
    sys.exit(main())
