"""Figures, captions and numbers of the theorems: python -m hamjepa_jax.theory --out=DIR."""

import pathlib
import sys
import time
from typing import TYPE_CHECKING

from hamjepa_jax import files
from hamjepa_jax.cli.parser import Parser, run_command

if TYPE_CHECKING:
    from hamjepa_jax.theory.figures import Drawn


def main(argv: list[str] | None = None) -> int:
    return run_command(lambda arguments: run(arguments.out, trained=arguments.trained), make_parser(), argv)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.theory",
        description="The paper's theorems as figures: the price of isotropy, the misalignment of fixed "
        "covariances, two couplings with equal marginals, penalties against collapses. Writes PNG and PDF figures, "
        "captions.md and numbers.json to DIR.",
    )
    parser.add_argument(
        "--trained",
        action="store_true",
        help="also train encoders with isotropic, right, wrong and no target covariances, measure their worst-case "
        "task variances, and write these and the machine to trained.json (minutes on a CPU)",
    )
    parser.add_path("--out", required=True, metavar="DIR", help="folder to write to; made if missing")
    return parser


def run(out: pathlib.Path, *, trained: bool = False) -> None:
    """Draws every figure into `out`, and prints the numbers; with `trained`, that of trained encoders too."""
    out = files.make_folder(out, "--out")
    # Imported late: flags and their mistakes need no figures.
    from hamjepa_jax.physics import canvas
    from hamjepa_jax.theory.figures import FIGURES

    captions, numbers = {}, {}
    figures = FIGURES | ({"trained_price": lambda: _trained(out)} if trained else {})
    with canvas.styled():
        for name, draw in figures.items():
            figure, values, caption = draw()
            canvas.save(figure, out, name)
            captions[name] = " ".join(caption.split())
            numbers |= values
    canvas.write_captions(out, "Geometry, couplings and collapse", captions)
    files.write_json(out / "numbers.json", numbers)
    for name, value in numbers.items():
        print(f"{name:62s} {value:.6g}")
    print(f"{len(captions)} figures written to {out}")


def _trained(out: pathlib.Path) -> "Drawn":
    """Trains, writes trained.json, and draws."""
    from hamjepa_jax.run.workdir import environment
    from hamjepa_jax.theory.figures import trained_price
    from hamjepa_jax.theory.trained import Trial, run_trial

    trial, begun = Trial(), time.monotonic()
    results = run_trial(trial)
    took = {"wall_s": round(time.monotonic() - begun, 1)}
    files.write_json(out / "trained.json", environment() | took | {"trial": trial._asdict(), "results": results})
    return trained_price(trial, results)


if __name__ == "__main__":
    sys.exit(main())
