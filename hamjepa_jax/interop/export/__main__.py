"""A run to a folder for others, and back to a workdir: python -m hamjepa_jax.interop.export WORKDIR --out=DIR."""

import argparse
import sys

from hamjepa_jax.cli.parser import Parser, run_command
from hamjepa_jax.cli.terminal import log_to_terminal
from hamjepa_jax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    return run_command(run, make_parser(), argv)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.interop.export",
        description="Writes a run as safetensors, config.json and a model card (the layout of the Hugging Face "
        "hub), its encoder as StableHLO and with PyTorch's names; or makes a workdir of such a folder again.",
    )
    parser.add_path("folder", metavar="WORKDIR", help="folder of a run, or of an export to make a workdir of")
    parser.add_path("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--step", type=int, metavar="N", help="checkpoint; the newest if not given")
    parser.add_argument("--name", help="of the model, for the card; that of the folder if not given")
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="put the export on the Hugging Face hub too (extra hub)"
    )
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Exports a run, or restores a workdir where the folder is an export.

    Raises:
      UserError: as `export_run` and `restore_workdir`, and for flags that a restored workdir does not take.
    """
    # Imported late: flags and their mistakes need no JAX.
    from hamjepa_jax.interop import hub
    from hamjepa_jax.interop.export.write import export_run, restore_workdir
    from hamjepa_jax.interop.exported import is_export

    folder, out = arguments.folder, arguments.out
    if not is_export(folder):
        if arguments.push is not None:
            hub.check_push(arguments.push)
        export_run(folder, out, step=arguments.step, name=arguments.name, pushed_to=arguments.push)
        print(f"wrote {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
        if arguments.push is not None:
            print(f"pushed to {hub.push(out, arguments.push)}")
        return
    for name in ("step", "name", "push"):
        if getattr(arguments, name) is not None:
            raise UserError(f"--{name}: {folder} is an export, of which a workdir is made; leave the flag out.")
    restore_workdir(folder, out)
    print(f"wrote the workdir {out}")


if __name__ == "__main__":
    log_to_terminal()
    sys.exit(main())
