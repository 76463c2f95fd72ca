"""Computes and draws every still figure of a system, and the numbers its captions quote."""

import pathlib

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


def write_stills(system: System, out: pathlib.Path) -> tuple[dict[str, float], dict[str, str]]:
    """Writes the figures (PNG and PDF) and numbers.json of one system into `out`.

    Returns:
      The numbers that the captions quote, and the captions by figure.
    """
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

    # -- Figures --------------------------------------------------------------------
    with canvas.styled():
        drawn = {
            "energy_drift_map": figures.energy_drift_map(system, drift),
            "return_error_map": figures.return_error_map(system, errors),
            "liouville": figures.liouville(system, ratio, np.stack(blob), after),
            "symplectic_defect": figures.symplectic_defect_histogram(system, defects),
            "energy_drift": figures.energy_drift_bands(system, bands, NUM_STARTS),
            "covariance": figures.covariance_along_rollout(system, covariance),
            "sliced_discrepancy": figures.sliced_discrepancy(system, angles, slices),
            "projection_sketch": figures.projection_sketch(system, final, SKETCH_ANGLE),
        }
        for name, figure in drawn.items():
            canvas.save(figure, out, name)

    # -- Numbers and captions ---------------------------------------------------------
    numbers = {}
    for m in METHODS:
        found = {
            "energy_drift_largest": np.nanmax(np.abs(drift[m])),
            "energy_drift_median": bands[m][1, -1],
            "return_error_median": np.median(errors[m]),
            "return_error_largest": errors[m].max(),
            "area_ratio": ratio[m][-1],
            "hull_ratio": hull[m],
            "symplectic_defect_largest": defects[m].max(),
            "sliced_w1_mean": slices[m].mean(),
            "sliced_w1_max": slices[m].max(),
        }
        numbers |= {f"{m}/{name}": float(value) for name, value in found.items()}
    finite = {name: value if np.isfinite(value) else None for name, value in numbers.items()}  # JSON has no inf
    files.write_json(out / "numbers.json", finite)
    settings = _settings(system) | step | numbers
    captions = {name: " ".join(CAPTIONS[name].format(**settings).split()) for name in drawn}
    if system.name == "pendulum":
        captions["sliced_discrepancy"] += " " + " ".join(PUBLISHED_SLICES.split())
    return numbers, captions


def _settings(system: System) -> dict[str, object]:
    """The settings that the captions quote."""
    return dict(
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
