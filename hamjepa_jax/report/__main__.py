"""The command python -m hamjepa_jax.report: the tables of Markdown documents made again from their JSON files."""

import argparse
import pathlib
import sys

from hamjepa_jax import files
from hamjepa_jax.cli.parser import Parser, run_command
from hamjepa_jax.errors import UserError
from hamjepa_jax.report.documents import made_again


def main(argv: list[str] | None = None) -> int:
    return run_command(rewrite, make_parser(), argv)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.report",
        description="Makes the tables of Markdown documents again from the JSON files that they name. A table "
        "stands between <!-- table: FORM FILE --> and <!-- /table -->.",
    )
    parser.add_argument("documents", nargs="+", type=pathlib.Path, metavar="DOCUMENT", help="Markdown files")
    return parser


def rewrite(arguments: argparse.Namespace) -> None:
    for document in arguments.documents:
        if not document.is_file():
            raise UserError(f"{document}: there is no such file.")
        after = made_again(document)
        before = document.read_text(encoding="utf-8")
        if "<!-- table:" not in before:
            raise UserError(f"{document}: has no table to make again; one begins with <!-- table: FORM FILE -->.")
        if after != before:
            files.write_text(document, after)
        print(f"{document}: {'its tables were made again' if after != before else 'its tables are up to date'}")


if __name__ == "__main__":
    sys.exit(main())
