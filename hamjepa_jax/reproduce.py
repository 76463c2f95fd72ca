"""The command python -m hamjepa_jax.reproduce: one of the paper's tables from your own machine."""

import argparse
import sys

from hamjepa_jax.cli import terminal
from hamjepa_jax.cli.parser import Parser, list_of, run_command
from hamjepa_jax.experiments.tables import TABLES


def main(argv: list[str] | None = None) -> int:
    return run_command(reproduce, make_parser(), argv)


def reproduce(arguments: argparse.Namespace) -> None:
    """Trains what is missing of a table, and writes the report."""
    from hamjepa_jax.experiments import paper  # Late: --help needs no JAX.

    paper.reproduce(arguments)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.reproduce",
        description="Trains every method of a table with every seed, evaluates every readout, "
        "and writes one report. The same command again skips finished runs and goes on with interrupted ones. On "
        "other data than the table's own it runs the same recipes, with the images' own mean and deviation and "
        "without published numbers.",
    )
    add = parser.add_argument
    add("--table", required=True, choices=TABLES, help="which table, of the paper or of this package")
    add(
        "--data",
        required=True,
        metavar="SPEC",
        help="data.source of all runs, such as cifar100: or arrays:FILE.npz",
    )
    add("--out", required=True, metavar="DIR", help="folder for the runs and the report")
    add("--seeds", type=list_of(int), default=(0, 1, 2), metavar="N,…", help="seeds of each method")
    add(
        "--methods",
        type=list_of(str),
        metavar="NAME,…",
        help="some of the table's; of the matched table also a config by name or FILE.py",
    )
    add(
        "--override", action="append", default=[], metavar="FIELD=VALUE", help="change all configs; may be repeated"
    )
    add("--configs", metavar="DIR", help="folder of config files that take the place of the package's own")
    add(
        "--parallel_seeds",
        action="store_true",
        help="train all seeds of a method at once; the device must hold the state and activations of all",
    )
    add(
        "--pictures",
        action="store_true",
        help="show in the report what evaluate --pictures draws, of the first seed of each method",
    )
    add("--report_only", action="store_true", help="train nothing; report on the runs that are done")
    return parser


if __name__ == "__main__":
    terminal.log_to_terminal()
    sys.exit(main())
