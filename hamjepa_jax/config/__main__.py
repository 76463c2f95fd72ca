"""The command python -m hamjepa_jax.config: the fields of a config, or those in which two differ."""

import argparse
import sys

from hamjepa_jax.cli.parser import Parser, run_command


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.config",
        description="Lists every field of a config: its value, its default where that differs, and its meaning. "
        "Without a config, the defaults. The config may also be the first word alone.",
    )
    parser.add_argument(
        "--diff", metavar="CONFIG", help="list only the fields in which this config differs, with both values"
    )
    parser.add_config()
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
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):  # `hamjepa config quickstart`
        words[0] = f"--config={words[0]}"
    return run_command(show, make_parser(), words)


if __name__ == "__main__":
    sys.exit(main())
