"""The command python -m hamjepa_jax.sweep: accuracy over a grid of settings."""

import argparse
import sys

from hamjepa_jax.cli import terminal
from hamjepa_jax.cli.parser import Parser, run_command


def main(argv: list[str] | None = None) -> int:
    return run_command(sweep, make_parser(), argv)


def sweep(arguments: argparse.Namespace) -> None:
    """Runs the chosen cells, and writes the table of those that are done."""
    from hamjepa_jax.experiments import cells  # Late: --help needs no JAX.

    cells.sweep(arguments)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.sweep",
        description="Trains and evaluates a config over a grid of settings, and writes one table and heat map from "
        "the cells that are done. The same command again skips finished cells and goes on with interrupted ones.",
        epilog='A grid file: {"config": "cifar100", "override": {"train.epochs": 5}, "axes": '
        '{"predictor.step_size": [0.025, 0.05], "predictor.num_steps": [1, 2]}, "seeds": [0]}, as JSON, or as what '
        'get_grid() of a Python file returns. Fields joined by "+" are set together.',
    )
    parser.add_argument("grid", metavar="GRID", help="grid file, .json or .py")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the cells and the table")
    parser.add_argument("--cell", default="all", metavar="I", help='number of a cell, "all", or "none": table only')
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="show in the report what evaluate --pictures draws, of the first seed of the most accurate cell",
    )
    parser.add_argument("--list", action="store_true", help="print the numbered cells and stop")
    return parser


if __name__ == "__main__":
    terminal.log_to_terminal()
    sys.exit(main())
