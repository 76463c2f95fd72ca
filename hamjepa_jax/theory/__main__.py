"""`python -m hamjepa_jax.theory --out DIR`: the theorems' figures, captions and numbers."""

import argparse
import json
import pathlib
import sys

from hamjepa_jax.errors import UserError
from hamjepa_jax.folders import make_folder
from hamjepa_jax.physics import canvas
from hamjepa_jax.theory import figures

FIGURES = {
    "price_of_isotropy": figures.price_of_isotropy,
    "misalignment": figures.misalignment,
    "equal_marginals": figures.equal_marginals,
    "penalties_and_collapses": figures.penalties_and_collapses,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hamjepa_jax.theory",
        description="The paper's theorems as figures: the price of isotropy, the misalignment of fixed "
        "covariances, two couplings with equal marginals, penalties against collapses. Writes PNG and PDF figures, "
        "captions.md and numbers.json to DIR.",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to; made if missing")
    arguments = parser.parse_args(argv)
    try:
        run(pathlib.Path(arguments.out))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(out: pathlib.Path) -> None:
    """Draws every figure into `out`, and prints the numbers."""
    out = make_folder(out, "--out")
    captions, numbers = {}, {}
    with canvas.styled():
        for name, draw in FIGURES.items():
            figure, values, caption = draw()
            canvas.save(figure, out, name)
            captions[name] = " ".join(caption.split())
            numbers |= values
    canvas.write_captions(out, "Geometry, couplings and collapse", captions)
    (out / "numbers.json").write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, value in numbers.items():
        print(f"{name:62s} {value:.6g}")
    print(f"{len(captions)} figures written to {out}")


if __name__ == "__main__":
    sys.exit(main())
