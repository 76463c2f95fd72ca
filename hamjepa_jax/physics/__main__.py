"""`python -m hamjepa_jax.physics --out DIR`: the figures, captions, numbers and animations of one system."""

import argparse
import os
import pathlib
import sys

import jax

from hamjepa_jax.errors import UserError
from hamjepa_jax.physics import animations, canvas, gallery
from hamjepa_jax.physics.systems import SYSTEMS


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hamjepa_jax.physics",
        description="Explicit Euler against leapfrog on a textbook system: energy drift, time reversal, area, "
        "symplecticity, covariance and sliced discrepancy. Writes PNG and PDF figures, captions.md, numbers.json "
        "and two animations (GIF; MP4 too where ffmpeg is on the path) to DIR/SYSTEM.",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to; made if missing")
    parser.add_argument("--system", default="pendulum", choices=sorted(SYSTEMS), help="default: %(default)s")
    parser.add_argument("--no-animations", action="store_true", help="still figures only (seconds)")
    arguments = parser.parse_args(argv)
    try:
        run(SYSTEMS[arguments.system], pathlib.Path(arguments.out), with_animations=not arguments.no_animations)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(system, out: pathlib.Path, *, with_animations: bool) -> None:
    """Writes everything of one system to out/<system>, and prints the numbers."""
    folder = canvas.make_folder(out / system.name)
    numbers, captions = gallery.write_stills(system, folder)
    if with_animations:
        captions |= animations.write_animations(system, folder)
    canvas.write_captions(folder, f"{system.title}: explicit Euler and leapfrog", captions)
    for name, value in numbers.items():
        print(f"{name:38s} {value:.6g}")
    print(f"{len(captions)} figures and animations written to {folder}")


if __name__ == "__main__":
    # Small float64 programs: an accelerator, where there is one, would only be slower and may lack float64.
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    sys.exit(main())
