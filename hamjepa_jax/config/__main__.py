"""The command python -m hamjepa_jax.config: the fields of a config, or those in which two differ."""

import argparse
import sys

from hamjepa_jax.cli.parser import Parser, run_command


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.config",
        description="Lists every field of a config: its value, its default where that differs, and its meaning. "
        "Without a config, the defaults.",
    )
    parser.add_argument(
        "--diff", metavar="CONFIG", help="list only the fields in which this config differs, with both values"
    )
    parser.add_config(alone=True)
    return parser


def show(arguments: argparse.Namespace) -> None:
    """Prints the fields, one paragraph for each block, or the differing ones, a line each."""
    from hamjepa_jax import config as config_lib

    config = config_lib.default_config()
    if arguments.config is not None:
        config = config_lib.configure(arguments.config, arguments.overrides)
    if arguments.diff is None:
        print(config_lib.describe(config))
    else:
        print(config_lib.differences(config, config_lib.read_config(arguments.diff)))


def main(argv: list[str] | None = None) -> int:
    return run_command(show, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
