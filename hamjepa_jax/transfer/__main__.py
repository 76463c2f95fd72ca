"""The command python -m hamjepa_jax.transfer: a run's encoder on other labelled data."""

import argparse
import sys

from hamjepa_jax.cli import terminal
from hamjepa_jax.cli.parser import Parser, list_of, number, run_command, whole_number
from hamjepa_jax.transfer.names import DATA_DIR, NAMES, RECIPE


def main(argv: list[str] | None = None) -> int:
    return run_command(transfer, make_parser(), argv)


def transfer(arguments: argparse.Namespace) -> None:
    """Measures what is not measured yet, and writes the table."""
    from hamjepa_jax.transfer import measure  # Late: --help needs no JAX.

    measure.transfer(arguments)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.transfer",
        description="Measures the frozen encoder of a run on other data with labels, from few or all of them: kNN, "
        "the linear probe, and logistic regression whose penalty is chosen on held-out training images; with "
        "--finetune also the encoder trained on. The same command again measures only what is missing.",
        epilog=f"Names: {', '.join(NAMES)}. They are looked for in --data_dir (or ${DATA_DIR}, or ./data) as "
        "folders or .npz files, then among prepared TFDS sets.",
    )
    add = parser.add_argument
    parser.add_path("workdir", metavar="RUN", help="folder of a run")
    add(
        "--sources",
        type=list_of(str),
        required=True,
        metavar="a,b",
        help="names, or sources as data.source has them",
    )
    add("--shots", type=list_of(str), default=("all",), metavar="1,5,all", help='labelled images a class, or "all"')
    add("--seeds", type=whole_number(1), default=3, metavar="N", help="draws of labelled images, and of the probe")
    add("--readout", metavar="NAME", help="q, p, qp or z; the whole state if not given")
    add("--step", type=whole_number(0), metavar="N", help="checkpoint; the newest if not given")
    add(
        "--finetune",
        action="store_true",
        help="trains the encoder on as well, with a linear layer; interrupted, it goes on",
    )
    epochs, rate, decay = RECIPE.values()
    add(
        "--finetune_epochs",
        type=whole_number(1),
        metavar="N",
        help=f"its length; at least 100 steps; {epochs} if not given",
    )
    add("--finetune_rate", type=number(0), metavar="LR", help=f"its peak learning rate; {rate:g} if not given")
    add(
        "--layer_decay",
        type=number(0, 1),
        metavar="F",
        help=f"factor of it from a block of the trunk to the one before; 1 for none; {decay:g} if not given",
    )
    parser.add_path("--data_dir", metavar="DIR", help="folder of named data sets")
    parser.add_path("--out", metavar="DIR", help="folder to write to; RUN/transfer if not given")
    return parser


if __name__ == "__main__":
    terminal.log_to_terminal()
    sys.exit(main())
