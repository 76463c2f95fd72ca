"""A PyTorch checkpoint to a workdir: python -m hamjepa_jax.interop.torch CKPT.pth --out=DIR."""

import argparse
import sys

from hamjepa_jax.cli.parser import Parser, run_command, truth, whole_number
from hamjepa_jax.cli.terminal import log_to_terminal


def main(argv: list[str] | None = None) -> int:
    return run_command(run, make_parser(), argv)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.interop.torch",
        description="Makes a workdir of a PyTorch checkpoint (.pth, .pt or .safetensors): of a HamJEPA or SIGReg "
        "run, or of a ResNet or ViT, whose trunk a run then starts from. PyTorch is not needed, and no code of the "
        "file is run. Settings that the file does not say have to be given.",
    )
    add = parser.add_argument
    parser.add_path("checkpoint", metavar="CKPT", help="the file")
    parser.add_path("--out", required=True, metavar="DIR", help="workdir to make")
    add(
        "--config",
        metavar="FILE",
        help="config of the run, NAME or FILE.py, with or without :name=value,…; if not given, the one that fits",
    )
    add("--source", metavar="SPEC", help="its images, as data.source")
    add(
        "--part",
        metavar="NAME",
        help="entry of the file that holds the weights, where there are several, as in model_ema or teacher",
    )
    add("--stem", choices=("cifar", "imagenet"), help="read off the weights; can be given as a check")
    add("--token_layer", type=int, choices=(1, 2, 3, 4), help="likewise, of a ResNet")
    add(
        "--token_hw",
        type=_side,
        default=argparse.SUPPRESS,
        metavar="N",
        help="side of the pooled token grid, or none for the layer's own",
    )
    add("--split_qp", type=truth, metavar="true|false", help="whether the state is laid out as [q; p]")
    add(
        "--override",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of the config, for training on, as in optimizer.learning_rate=1e-4; can be repeated",
    )
    add("--non_strict", action="store_true", help="ignore unexpected weights, leave missing ones as initialised")
    return parser


def _side(text: str) -> int | None:
    return None if text == "none" else whole_number(1)(text)


def run(arguments: argparse.Namespace) -> None:
    """Makes the workdir, and says how to go on."""
    # Imported late: flags and their mistakes need no JAX.
    from hamjepa_jax.interop.torch.importer import import_checkpoint

    given = {name: getattr(arguments, name) for name in ("stem", "token_layer", "split_qp")}
    if hasattr(arguments, "token_hw"):
        given["token_hw"] = arguments.token_hw
    import_checkpoint(
        arguments.checkpoint,
        arguments.out,
        config=arguments.config,
        source=arguments.source,
        overrides=arguments.override,
        given=given,
        part=arguments.part,
        strict=not arguments.non_strict,
    )
    print(f"evaluate:  python -m hamjepa_jax.main --mode=evaluate --workdir={arguments.out}")
    print(f"train on:  python -m hamjepa_jax.main --workdir={arguments.out}")


if __name__ == "__main__":
    log_to_terminal()
    sys.exit(main())
