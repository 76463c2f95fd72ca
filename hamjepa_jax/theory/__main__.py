"""Figures, captions and numbers of the theorems: python -m hamjepa_jax.theory --out=DIR."""

import pathlib
import sys

from hamjepa_jax import files
from hamjepa_jax.cli.parser import Parser, run_command


def main(argv: list[str] | None = None) -> int:
    return run_command(lambda arguments: run(arguments.out), make_parser(), argv)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.theory",
        description="The paper's theorems as figures: the price of isotropy, the misalignment of fixed "
        "covariances, two couplings with equal marginals, penalties against collapses. Writes PNG and PDF figures, "
        "captions.md and numbers.json to DIR.",
    )
    parser.add_path("--out", required=True, metavar="DIR", help="folder to write to; made if missing")
    return parser


def run(out: pathlib.Path) -> None:
    """Draws every figure into `out`, and prints the numbers."""
    out = files.make_folder(out, "--out")
    # Imported late: flags and their mistakes need no figures.
    from hamjepa_jax.physics import canvas
    from hamjepa_jax.theory.figures import FIGURES

    captions, numbers = {}, {}
    with canvas.styled():
        for name, draw in FIGURES.items():
            figure, values, caption = draw()
            canvas.save(figure, out, name)
            captions[name] = " ".join(caption.split())
            numbers |= values
    canvas.write_captions(out, "Geometry, couplings and collapse", captions)
    files.write_json(out / "numbers.json", numbers)
    for name, value in numbers.items():
        print(f"{name:62s} {value:.6g}")
    print(f"{len(captions)} figures written to {out}")


if __name__ == "__main__":
    sys.exit(main())
