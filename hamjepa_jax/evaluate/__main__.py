"""The command python -m hamjepa_jax.evaluate: checkpoints of trained runs to numbers, figures and features."""

import argparse
import sys

from hamjepa_jax.cli import terminal
from hamjepa_jax.cli.parser import Parser, list_of, run_command

FORMATS = ("npz", "npy")


def main(argv: list[str] | None = None) -> int:
    return run_command(evaluate_all, make_parser(), argv)


def evaluate_all(arguments: argparse.Namespace) -> None:
    """Evaluates each workdir in turn."""
    from hamjepa_jax.evaluate.checkpoints import evaluate_all  # Late: --help needs no JAX.

    evaluate_all(arguments)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.evaluate",
        description="Evaluates checkpoints of trained runs: kNN, linear probe and geometry of q, p and (q,p), and "
        "on request alignment and uniformity of augmented views, the structure of the learned flow, "
        "H^{1/2}-transformed readouts, probes of the factors that images were drawn from, rollouts of the systems "
        "that clips show, other data than trained on, and the features themselves.",
    )
    add = parser.add_argument
    add("workdirs", nargs="+", metavar="WORKDIR", help="folder of a run")
    add("--steps", default="latest", help='checkpoints: "latest", "best", "all", or steps, as in 1000,2000')
    add(
        "--source",
        type=_not_empty,
        metavar="SPEC",
        help="data to evaluate on, as data.source, in place of the training's own",
    )
    parser.add_path(
        "--out", metavar="DIR", help="folder to write to; with several workdirs, a folder in it for each"
    )
    add("--readouts", type=list_of(str), metavar="q,p,qp", help="readouts to evaluate")
    add("--ks", type=list_of(int), metavar="K,…", help="neighbours of the kNN")
    add("--vote", default="majority", choices=("majority", "softmax"), help="weight of the neighbours' votes")
    add("--temperature", type=float, help="of the softmax vote; 0.07 if not given")
    add(
        "--published_top5",
        action="store_true",
        help="also the kNN's top-5 as published numbers have it, in which classes without votes may be right",
    )
    add(
        "--learning_rates",
        type=list_of(float),
        metavar="RATE,…",
        help="learning rates of probes, trained side by side",
    )
    add("--probe_epochs", type=int, metavar="N", help="epochs of the probe; 0 leaves it out")
    add("--few_shot", type=int, metavar="N", help="labelled training examples a class for kNN and probe")
    add("--references", type=list_of(str), metavar="untrained,pixels", help="rows to compare with")
    _add_measures(parser)
    parser.add_path("--export", metavar="DIR", help="write the features of training and test images to this folder")
    add(
        "--export_format", choices=FORMATS, help="npz, one file, if not given; npy: files that can be memory-mapped"
    )
    parser.epilog = (
        "Settings that are not given are those of the run's config. Without --out, results are written to "
        "WORKDIR/evaluation, or to WORKDIR/evaluation_on_NAME for another source. "
        "With --out, --factors puts all runs together in DIR/factors.json, seeds of one config as one method."
    )
    return parser


def _add_measures(parser: Parser) -> None:
    """Flags of what is measured besides accuracies and geometry."""
    add = parser.add_argument
    add(
        "--metric",
        metavar="H",
        help='also read out H^{1/2}z: "trained", "diag", "chain" or "chain:kappa=1,beta=0.7"',
    )
    add("--views", action="store_true", help="alignment and uniformity of two augmented views of the test images")
    add("--lidar", type=int, nargs="?", const=1000, metavar="N", help="LiDAR of random views of N test images, "
        "evaluate.lidar.views of each (1000 if no number is given)")  # fmt: skip
    add("--flow", type=int, nargs="?", const=4, metavar="N", help="structure of the learned flow, with "
        "Jacobians at N test states (4 if no number is given)")  # fmt: skip
    add("--pictures", action="store_true", help="a page of pictures: nearest neighbours, a map of the test set, "
        "tokens over images, pairs of views, and paths of states under the learned flow")  # fmt: skip
    add(
        "--factors",
        action="store_true",
        help="what the readouts know of the factors that the images were drawn from, before and after the flow; "
        "for sources that state them, as shapes does",
    )
    add(
        "--trajectories",
        action="store_true",
        help="what states and flow know of the systems that clips show: R² of position and momentum, rollouts, "
        "symplecticity, energy; for sources that state them, as trajectories does",
    )


def _not_empty(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty; give data, or leave the flag out")
    return text


if __name__ == "__main__":
    terminal.log_to_terminal()
    sys.exit(main())
