"""Figures, captions and numbers of a textbook system, or of a run's learned flow: python -m hamjepa_jax.physics."""

import argparse
import os
import pathlib
import sys

import jax

from hamjepa_jax import files
from hamjepa_jax.cli import terminal
from hamjepa_jax.cli.parser import Parser, run_command, whole_number
from hamjepa_jax.errors import UserError
from hamjepa_jax.physics.systems import SYSTEMS, System

DESCRIPTION = """With --out: explicit Euler against leapfrog on a textbook system (energy drift, time reversal,
area, symplecticity, covariance, sliced discrepancy), as PNG and PDF figures, captions.md, numbers.json and two
animations (GIF; MP4 too where ffmpeg is on the path) in OUT/SYSTEM. With --workdir: energy drift, reversal,
symplectic defect, volume and spectrum of the flow that a training run has learned, at states of its test images."""
OF_A_SYSTEM = ("system", "no_animations")
OF_A_RUN = ("comparison", "step", "source", "states", "jacobians")


def main(argv: list[str] | None = None) -> int:
    return run_command(run, make_parser(), argv)


def make_parser() -> Parser:
    parser = Parser(prog="python -m hamjepa_jax.physics", description=DESCRIPTION)
    add = parser.add_argument
    parser.add_path(
        "--out", metavar="DIR", help="folder to write to, made if missing; WORKDIR/physics if not given"
    )
    add("--system", default="pendulum", choices=sorted(SYSTEMS), help="the textbook system")
    add("--no_animations", action="store_true", help="still figures only (seconds)")
    add("--no-animations", action="store_true", dest="no_animations", help=argparse.SUPPRESS)  # as it was spelled
    parser.add_path("--workdir", metavar="DIR", help="of a training run, to draw its learned flow instead")
    parser.add_path("--comparison", metavar="DIR", help="of its MLP ablation, to draw beside it")
    add("--step", type=int, metavar="N", help="checkpoint of --workdir; the newest if not given")
    add("--source", metavar="SPEC", help="its test images, as data.source; as in training if not given")
    add("--states", type=whole_number(1), default=512, metavar="N", help="test images")
    add("--jacobians", type=whole_number(1), default=8, metavar="N", help="of them with a Jacobian")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Draws a textbook system, or with --workdir a run's learned flow; flags of the other kind end the program."""
    parser, learned = make_parser(), arguments.workdir is not None
    if not learned and (arguments.out is None or arguments.comparison is not None):
        parser.error("give --out DIR for a textbook system, or --workdir DIR [--comparison DIR] for a trained run")
    for name in OF_A_SYSTEM if learned else OF_A_RUN:
        if getattr(arguments, name) != parser.get_default(name):
            reason = "is about a textbook system, not a run" if learned else "needs the run of --workdir"
            parser.error(f"--{name}: {reason}; leave it out")
    if learned:
        draw_learned(arguments)
    else:
        draw_system(SYSTEMS[arguments.system], arguments.out, with_animations=not arguments.no_animations)


def draw_system(system: System, out: pathlib.Path, *, with_animations: bool) -> None:
    """Writes everything of one system to out/<system>, and prints the numbers."""
    from hamjepa_jax.physics import animations, canvas, gallery

    folder = files.make_folder(out / system.name, "--out")
    numbers, captions = gallery.write_stills(system, folder)
    if with_animations:
        captions |= animations.write_animations(system, folder)
    canvas.write_captions(folder, f"{system.title}: explicit Euler and leapfrog", captions)
    _report(numbers)
    print(f"{len(captions)} figures and animations written to {folder}")


def draw_learned(arguments: argparse.Namespace) -> None:
    """Writes the diagnostics of a run's learned flow, and prints the numbers."""
    # Imported late: a textbook system needs neither networks nor data.
    from hamjepa_jax.physics.learned import learned_flow_figures
    from hamjepa_jax.run.restore import heldout_states, load_run, trained_flow

    workdir = arguments.workdir
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
    out = workdir / "physics" if arguments.out is None else arguments.out
    numbers = learned_flow_figures(flow, energy, states, out, num_jacobians=arguments.jacobians, **beside)
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
    terminal.quiet_libraries()
    sys.exit(main())
