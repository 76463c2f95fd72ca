"""Computes and draws every still figure of a system, and the numbers its captions quote."""

import pathlib
from typing import NamedTuple

import numpy as np

from hamjepa_jax import files
from hamjepa_jax.physics import canvas, figures, measures, rollouts
from hamjepa_jax.physics.captions import CAPTIONS, PUBLISHED_SLICES
from hamjepa_jax.physics.systems import System

METHODS = ("euler", "leapfrog")
WINDOW_GRID = 151
BLOB_GRID = 41
NUM_STARTS = 256
NUM_ANGLES = 180
SKETCH_ANGLE = np.pi / 6
# The reference is leapfrog at a tenth of the step: 0.01 and 2500 steps for the pendulum.
REFINEMENT = 10


class Measured(NamedTuple):
    """What the figures of a system show. The dicts are by integrator; some have "reference" beside.

    Attributes:
      drift: relative energy drift of each start in the window.
      errors: distance of each from its start, there and back again.
      blob: the grid (q, p) that is carried along.
      ratio: [steps + 1] area of the carried grid to its first area.
      after: [2, ...] the carried grid at the end.
      hull: area of its hull at the end to that of the first.
      defects: symplectic defect of one step from each random start.
      bands: of the energy drift over random starts.
      covariance: statistics of the random starts along the rollout.
      final: [starts, 2] of the random starts at the end.
      angles: [n] of the slices, in radians.
      slices: [n] discrepancy of `final` from the reference's in each slice.
    """

    drift: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    blob: tuple[np.ndarray, np.ndarray]
    ratio: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    hull: dict[str, float]
    defects: dict[str, np.ndarray]
    bands: dict[str, np.ndarray]
    covariance: dict[str, dict[str, np.ndarray]]
    final: dict[str, np.ndarray]
    angles: np.ndarray
    slices: dict[str, np.ndarray]


def write_stills(system: System, out: pathlib.Path) -> tuple[dict[str, float], dict[str, str]]:
    """Writes the figures (PNG and PDF) and numbers.json of one system into `out`.

    Returns:
      The numbers that the captions quote, and the captions by figure.
    """
    measured = _measured(system)
    names, numbers = _drawn(system, measured, out), _numbers(measured)
    finite = {name: value if np.isfinite(value) else None for name, value in numbers.items()}  # JSON has no inf
    files.write_json(out / "numbers.json", finite)
    settings = _settings(system) | numbers
    captions = {name: " ".join(CAPTIONS[name].format(**settings).split()) for name in names}
    if system.name == "pendulum":
        captions["sliced_discrepancy"] += " " + " ".join(PUBLISHED_SLICES.split())
    return numbers, captions


def _measured(system: System) -> Measured:
    step = dict(step_size=system.step_size, num_steps=system.num_steps)
    reference_step = dict(step_size=system.step_size / REFINEMENT, num_steps=system.num_steps * REFINEMENT)

    # -- Maps over the window of starts ----------------------------------------
    window = measures.window_grid(system, WINDOW_GRID)
    drift = {m: measures.drift_map(system, *window, method=m) for m in METHODS}
    errors = {m: rollouts.return_error(system, *window, method=m, **step) for m in METHODS}

    # -- A grid carried along ----------------------------------------------------
    blob = measures.blob_grid(system, BLOB_GRID)
    carried = {m: rollouts.rollout(system, *blob, method=m, **step) for m in METHODS}
    ratio = {m: measures.grid_area(*carried[m]) / measures.grid_area(*blob) for m in METHODS}
    after = {m: np.stack(carried[m])[:, -1] for m in METHODS}
    hull = {m: measures.hull_area(*after[m]) / measures.hull_area(*blob) for m in METHODS}

    # -- A cloud of random starts ------------------------------------------------
    starts = rollouts.random_starts(system, NUM_STARTS)
    one_step = dict(step_size=system.step_size, num_steps=1)
    defects = {m: rollouts.symplectic_defect(system, *starts, method=m, **one_step) for m in METHODS}
    cloud = {m: rollouts.rollout(system, *starts, method=m, **step) for m in METHODS}
    reference = rollouts.rollout(system, *starts, method="leapfrog", **reference_step)
    cloud["reference"] = tuple(x[::REFINEMENT] for x in reference)
    bands = {m: measures.energy_drift_bands(rollouts.energy(system, *cloud[m])) for m in METHODS}
    covariance = {m: measures.covariance_statistics(*cloud[m]) for m in cloud}
    final = {m: np.stack([x[-1] for x in cloud[m]], axis=-1) for m in cloud}
    angles = np.linspace(0.0, np.pi, NUM_ANGLES, endpoint=False)
    slices = {m: measures.sliced_discrepancy(final[m], final["reference"], angles) for m in METHODS}
    return Measured(drift, errors, blob, ratio, after, hull, defects, bands, covariance, final, angles, slices)


def _drawn(system: System, x: Measured, out: pathlib.Path) -> list[str]:
    """Draws and writes the figures, and gives their names."""
    with canvas.styled():
        drawn = {
            "energy_drift_map": figures.energy_drift_map(system, x.drift),
            "return_error_map": figures.return_error_map(system, x.errors),
            "liouville": figures.liouville(system, x.ratio, np.stack(x.blob), x.after),
            "symplectic_defect": figures.symplectic_defect_histogram(system, x.defects),
            "energy_drift": figures.energy_drift_bands(system, x.bands, NUM_STARTS),
            "covariance": figures.covariance_along_rollout(system, x.covariance),
            "sliced_discrepancy": figures.sliced_discrepancy(system, x.angles, x.slices),
            "projection_sketch": figures.projection_sketch(system, x.final, SKETCH_ANGLE),
        }
        for name, figure in drawn.items():
            canvas.save(figure, out, name)
    return list(drawn)


def _numbers(x: Measured) -> dict[str, float]:
    """{"integrator/name": number} that the captions quote."""
    numbers = {}
    for m in METHODS:
        found = {
            "energy_drift_largest": np.nanmax(np.abs(x.drift[m])),
            "energy_drift_median": x.bands[m][1, -1],
            "return_error_median": np.median(x.errors[m]),
            "return_error_largest": x.errors[m].max(),
            "area_ratio": x.ratio[m][-1],
            "hull_ratio": x.hull[m],
            "symplectic_defect_largest": x.defects[m].max(),
            "sliced_w1_mean": x.slices[m].mean(),
            "sliced_w1_max": x.slices[m].max(),
        }
        numbers |= {f"{m}/{name}": float(value) for name, value in found.items()}
    return numbers


def _settings(system: System) -> dict[str, object]:
    """The settings that the captions quote."""
    return dict(
        step_size=system.step_size,
        num_steps=system.num_steps,
        duration=system.duration,
        blob_center=system.blob_center,
        blob_radius=system.blob_radius,
        window_grid=WINDOW_GRID,
        blob_grid=BLOB_GRID,
        num_starts=NUM_STARTS,
        num_angles=NUM_ANGLES,
        sketch_angle=np.degrees(SKETCH_ANGLE),
        reference_step_size=system.step_size / REFINEMENT,
        reference_num_steps=system.num_steps * REFINEMENT,
    )
