"""What the commands that take positional arguments share: mistakes in one sentence, messages on the terminal."""

import argparse
import json
import logging
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from hamjepa_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """Reports a mistake as one sentence and exit status 2; every flag must be written out."""

    def __init__(self, **settings: Any):
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        print(f"error: {message} (--help shows what there is)", file=sys.stderr)
        sys.exit(2)


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of a flag that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def list_of(kind: Callable[[str], Any]) -> Callable[[str], tuple]:
    """The type of a flag whose value is a list with commas."""

    def parse(text: str) -> tuple:
        return tuple(kind(part.strip()) for part in text.split(",") if part.strip())

    parse.__name__ = f"comma-separated {kind.__name__}"  # argparse shows it in its message
    return parse


def run(command: Callable[[argparse.Namespace], None], parser: Parser, argv: list[str] | None) -> int:
    """Parses the arguments, which the command gets as they were too, `argv`, and runs it.

    Returns:
      The exit status, 2 for a user's mistake.
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(argv, argparse.Namespace(argv=argv))
    try:
        command(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes the file in one go: another process never reads half of it."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(path)


def log_to_terminal() -> None:
    """The package's messages to standard output as they are, without Orbax's about how it was opened."""
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    show_messages()


def show_messages() -> None:
    """The package's messages to standard output."""
    logger = logging.getLogger("hamjepa_jax")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
