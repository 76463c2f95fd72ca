"""The command python -m hamjepa_jax.config: every field of a config with its value, default and meaning."""

import argparse
import sys

from hamjepa_jax.cli.parser import Parser, run_command


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.config",
        description="Lists every field of a config: its value, its default where that differs, and its meaning. "
        "Without --config, the defaults.",
    )
    parser.add_config()
    return parser


def show(arguments: argparse.Namespace) -> None:
    """Prints the fields, one paragraph for each block."""
    from hamjepa_jax import config as config_lib

    config = config_lib.get_config()
    if arguments.config is not None:
        config = config_lib.configure(arguments.config, arguments.overrides)
    print(config_lib.describe(config))


def main(argv: list[str] | None = None) -> int:
    return run_command(show, make_parser(), argv)


if __name__ == "__main__":
    sys.exit(main())
