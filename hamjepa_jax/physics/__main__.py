"""`python -m hamjepa_jax.physics`: figures, captions and numbers of a textbook system or a run's learned flow."""

import argparse
import os
import pathlib
import sys

import jax

from hamjepa_jax.errors import UserError
from hamjepa_jax.folders import make_folder
from hamjepa_jax.physics import animations, canvas, gallery, learned
from hamjepa_jax.physics.systems import SYSTEMS

DESCRIPTION = """With --out: explicit Euler against leapfrog on a textbook system (energy drift, time reversal,
area, symplecticity, covariance, sliced discrepancy), as PNG and PDF figures, captions.md, numbers.json and two
animations (GIF; MP4 too where ffmpeg is on the path) in OUT/SYSTEM. With --workdir: energy drift, reversal,
symplectic defect, volume and spectrum of the flow that a training run has learned, at states of its test images."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hamjepa_jax.physics", description=DESCRIPTION)
    parser.add_argument(
        "--out", metavar="DIR", help="folder to write to, made if missing; default: WORKDIR/physics"
    )
    parser.add_argument("--system", default="pendulum", choices=sorted(SYSTEMS), help="default: %(default)s")
    parser.add_argument("--no-animations", action="store_true", help="still figures only (seconds)")
    parser.add_argument("--workdir", metavar="DIR", help="of a training run, to draw its learned flow instead")
    parser.add_argument("--comparison", metavar="DIR", help="of its MLP ablation, to draw beside it")
    parser.add_argument("--step", type=int, help="checkpoint of --workdir; default: the newest")
    parser.add_argument(
        "--source", help="where the test images are, as config.data.source; default: as in training"
    )
    parser.add_argument("--states", type=int, default=512, help="test images; default: %(default)s")
    parser.add_argument("--jacobians", type=int, default=8, help="of them with a Jacobian; default: %(default)s")
    arguments = parser.parse_args(argv)
    if arguments.workdir is None and (arguments.out is None or arguments.comparison is not None):
        parser.error("give --out DIR for a textbook system, or --workdir DIR [--comparison DIR] for a trained run")
    for name in ("states", "jacobians"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)}: must be at least 1")
    try:
        if arguments.workdir is not None:
            draw_learned(arguments)
        else:
            system = SYSTEMS[arguments.system]
            draw_system(system, pathlib.Path(arguments.out), with_animations=not arguments.no_animations)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def draw_system(system, out: pathlib.Path, *, with_animations: bool) -> None:
    """Writes everything of one system to out/<system>, and prints the numbers."""
    folder = make_folder(out / system.name, "--out")
    numbers, captions = gallery.write_stills(system, folder)
    if with_animations:
        captions |= animations.write_animations(system, folder)
    canvas.write_captions(folder, f"{system.title}: explicit Euler and leapfrog", captions)
    _report(numbers)
    print(f"{len(captions)} figures and animations written to {folder}")


def draw_learned(arguments: argparse.Namespace) -> None:
    """Writes the diagnostics of a run's learned flow, and prints the numbers."""
    # Imported late: a textbook system needs neither networks nor data.
    from hamjepa_jax.restore import heldout_states, load_run, trained_flow

    workdir = pathlib.Path(arguments.workdir)
    run = load_run(workdir, step=arguments.step, source=arguments.source)
    if run.model.predictor.energy is None:
        raise UserError(
            f"--workdir {workdir}: its predictor.kind {run.config.predictor.kind!r} has no energy to follow; give "
            f"a 'hamiltonian' run there and this one as --comparison."
        )
    flow, energy = trained_flow(run)
    states, beside = heldout_states(run, arguments.states), {}
    if arguments.comparison is not None:
        other = load_run(arguments.comparison, source=arguments.source)
        other_states = heldout_states(other, arguments.states)
        if other_states.shape != states.shape:
            raise UserError(
                f"--comparison {arguments.comparison}: its states are {other_states.shape}, those of --workdir "
                f"{states.shape}; give a run with the same encoder and data."
            )
        beside = {"comparison": trained_flow(other)[0], "comparison_states": other_states}
    out = workdir / "physics" if arguments.out is None else pathlib.Path(arguments.out)
    numbers = learned.learned_flow_figures(flow, energy, states, out, num_jacobians=arguments.jacobians, **beside)
    _report(numbers)
    print(f"step {int(run.state.step)} of {workdir}: figures written to {out}")


def _report(numbers: dict[str, float]) -> None:
    width = max(map(len, numbers))
    for name, value in numbers.items():
        print(f"{name:{width}s} {value:.6g}")


if __name__ == "__main__":
    # Small or float64 programs: an accelerator, where there is one, would only be slower and may lack float64.
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    sys.exit(main())
