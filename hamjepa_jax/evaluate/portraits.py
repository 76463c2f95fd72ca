"""Pictures of a checkpoint on clips with states: phase portrait, errors of rollouts, an animation, and a page."""

import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from hamjepa_jax import build, parts, report
from hamjepa_jax.data import Source
from hamjepa_jax.evaluate.trajectories import encoded_clips, energy_along, middle_of
from hamjepa_jax.evaluation import trajectories as measures
from hamjepa_jax.run.restore import flow_of
from hamjepa_jax.training.state import TrainState

ConfigDict = ml_collections.ConfigDict
Array = np.ndarray
GRID = 60  # Points along a side of the plane on which the energy is drawn.


def draw_portraits(
    config: ConfigDict,
    model: build.Model,
    state: TrainState,
    source: Source,
    mesh,
    *,
    measured: Mapping[str, Any],
    epoch: int,
    folder: pathlib.Path,
) -> list[report.Figure]:
    """Draws portrait.png, rollouts.png, rollout.gif and report.html; returns the figures of the first two.

    Args:
      config: of the evaluation.
      model: the networks.
      state: the weights.
      source: clips with states.
      mesh: devices to spread the encoding over.
      measured: of `measure_trajectories`, with rollouts.
      epoch: of the checkpoint, counted from 1, for the flow.
      folder: for the figures and the page.
    """
    train, test = encoded_clips(config, model, state, source, mesh)
    true = [middle_of(split.states, config.views.stack) for split in (source.train, source.test)]
    flow, energy = flow_of(config, model.predictor, state.params["predictor"], epoch)
    path = measures.rollout(flow, test[0], frames=len(test) - 1, direction=1)
    read = measures.reader(train.reshape(-1, train.shape[-1]), true[0].reshape(-1, true[0].shape[-1]))
    first = energy_of_clips(source, len(test[0]), true[1])
    figures = [
        (
            report.portrait_figure(_orbits(test, path, energy, read, true[1], first), folder / "portrait.png"),
            "Orbits of test clips, coloured by their true energy. Left: in the plane of the state, or in its first "
            "two principal components. Right: the first position and momentum, read by a ridge regression.",
        ),
        (
            report.rollouts_figure({"this run": [measured]}, folder / "rollouts.png"),
            "Median squared error of rollouts against the encodings of the true frames.",
        ),
    ]
    clip = int(np.argsort(first)[-len(first) // 4])  # A lively one.
    rollout = _rollout(config, source, test, path, energy, clip)
    animation = report.rollout_animation(rollout, folder / "rollout.gif")
    text = (
        f"{animation.name}: a test clip, the frames whose encodings are nearest to the rollout, and the energies."
    )
    drawn = [report.Figure(*figure) for figure in figures]
    report.write_page("Trajectories", [*drawn, report.Text(text)], folder)
    return drawn


def has_portraits(config: ConfigDict, source: Source) -> bool:
    """Whether there is a learned motion to draw, and true states beside it."""
    known = getattr(source.test, "states", None) is not None
    return known and parts.objectives[config.objective.name].about["uses_predictor"]


def energy_of_clips(source: Source, count: int, states: Array) -> Array:
    """[n] true energies of the first clips at their start, or where not known their largest kinetic energy."""
    if source.test.energies is not None:
        return source.test.energies[:count, 0]
    return np.square(np.split(states, 2, axis=-1)[1]).sum(axis=-1).max(axis=0) / 2


def _orbits(test: Array, path: Array, energy, read, true: Array, energies: Array) -> report.Orbits:
    k, d = test.shape[-1], true.shape[-1] // 2
    names, plane, lines = ("q", "p"), lambda z: z, None
    if k > 2:
        flat = test.reshape(-1, k)
        mean, directions = flat.mean(axis=0), np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[2][:2]
        names, plane = ("first component", "second component"), lambda z: (z - mean) @ directions.T
    elif energy is not None:
        sides = [
            np.linspace(x.min() - 0.2 * np.ptp(x), x.max() + 0.2 * np.ptp(x), GRID) for x in test.reshape(-1, 2).T
        ]
        x, y = np.meshgrid(*sides)
        lines = (*sides, np.asarray(energy(np.stack([x, y], axis=-1).astype(np.float32))))
    fitted, rolled = (
        read(z.reshape(-1, k)).reshape(*z.shape[:2], 2 * d)[..., [0, d]] for z in (test, np.nan_to_num(path))
    )
    return report.Orbits(plane(test), plane(path), names, fitted, rolled, true[..., [0, d]], energies, lines)


def _rollout(config: ConfigDict, source: Source, test: Array, path: Array, energy, clip: int) -> report.Rollout:
    """The true and the nearest frames of a clip: of a stack, its last one."""
    last = config.views.stack - 1
    images = source.test.images[: test.shape[1], last : last + len(test)]
    near = measures.nearest(path[:, clip : clip + 1], test)[:, 0]
    energies = {}
    if energy is not None:
        along, all_of = np.split(energy_along(energy, np.concatenate([path, test])), 2)
        energies["learned, of the rollout"] = (along[:, clip] - all_of.mean()) / (all_of.std() or 1.0)
    if source.test.energies is not None:
        true = middle_of(source.test.energies[..., None], config.views.stack)[..., 0]
        energies["true"] = (true[:, clip] - true.mean()) / (true.std() or 1.0)
    frames = np.stack([images[n, t] for t, n in (divmod(int(i), test.shape[1]) for i in near)])
    return report.Rollout(images[clip], frames, energies, source.test.dt)
