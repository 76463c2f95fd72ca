"""Figures of one run on clips: phase portraits, and an animation of a rollout beside the true frames."""

import os
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

from hamjepa_jax.files import written_at_once
from hamjepa_jax.report.axes import blank, finish, save

ORBITS = 8  # Drawn, from the least to the largest energy.
PALETTE = 48  # Colours of the portrait.
LEVELS = 14  # Lines of the energy.
DOTS, DURATION = 90, 100  # Of the animation: dots per inch, milliseconds of a frame.
COLOURS = "viridis"


class Orbits(NamedTuple):
    """Clips as orbits.

    Attributes:
      encoded: [T, n, 2] encodings of the frames, in two dimensions.
      rolled: [T, n, 2] rollouts from the first frame's encoding, in the same.
      axes: names of these two dimensions.
      fitted: [T, n, 2] a position and its momentum as read from the encodings.
      fitted_rolled: [T, n, 2] the same of the rollouts.
      true: [T, n, 2] as they are.
      energies: [n] of the clips, for the colours.
      level_lines: (x [m], y [m], the learned energy [m, m], rows along y) over the dimensions of `encoded`; None
        where no energy is learned, or the states have more dimensions.
    """

    encoded: np.ndarray
    rolled: np.ndarray
    axes: tuple[str, str]
    fitted: np.ndarray
    fitted_rolled: np.ndarray
    true: np.ndarray
    energies: np.ndarray
    level_lines: tuple[np.ndarray, np.ndarray, np.ndarray] | None


class Rollout(NamedTuple):
    """One clip and its rollout.

    Attributes:
      frames: [T, h, w, 3] uint8, the true ones.
      nearest: [T, h, w, 3] uint8, those whose encodings are nearest to the rollout.
      energies: {name: [T]} along the way, in units of its spread over all clips.
      dt: time from one frame to the next.
    """

    frames: np.ndarray
    nearest: np.ndarray
    energies: dict[str, np.ndarray]
    dt: float


def portrait_figure(orbits: Orbits, path: str | os.PathLike) -> pathlib.Path:
    """Latent orbits over lines of the learned energy, and the true coordinates fitted to them.

    Args:
      orbits: of the clips; some of them are drawn.
      path: of the PNG; a PDF is written beside it.
    """
    figure = blank((8.6, 3.9))
    latent, fitted = figure.subplots(1, 2)
    if orbits.level_lines is not None:
        x, y, energy = orbits.level_lines
        latent.contour(x, y, energy, LEVELS, colors="#BBBBBB", linewidths=0.7)
    colours = _colours(orbits.energies)
    ranked = np.argsort(orbits.energies)
    for i in ranked[np.unique(np.linspace(0, len(ranked) - 1, ORBITS).round().astype(int))]:
        latent.plot(*orbits.encoded[:, i].T, ".", color=colours[i], markersize=3)
        latent.plot(*orbits.rolled[:, i].T, color=colours[i], linewidth=1.0)
        fitted.plot(*orbits.true[:, i].T, color="#999999", linewidth=0.8)
        fitted.plot(*orbits.fitted[:, i].T, ".", color=colours[i], markersize=3)
        fitted.plot(*orbits.fitted_rolled[:, i].T, color=colours[i], linewidth=1.0)
    for ax, cloud in ((latent, orbits.encoded), (fitted, orbits.true)):
        _window(ax, cloud)
    lines = ", energy (grey)" if orbits.level_lines is not None else ""
    finish(latent, f"Encodings (dots), rollouts (lines){lines}", *orbits.axes)
    finish(fitted, "Read from them, and as it is (grey)", "position", "momentum")
    png = save(figure, path)
    with Image.open(png) as image, written_at_once(png) as temporary:  # Small enough for a page.
        image.convert("RGB").quantize(PALETTE).save(temporary, format="PNG", optimize=True)
    return png


def rollout_animation(rollout: Rollout, path: str | os.PathLike) -> pathlib.Path:
    """A GIF: the true frame, the frame nearest to the rollout, and the energies up to then.

    Args:
      rollout: what to draw.
      path: of the GIF.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = pathlib.Path(path)
    figure = blank((7.4, 2.6))
    figure.set_dpi(DOTS)
    true, nearest, trace = figure.subplots(1, 3, width_ratios=[1, 1, 1.5])
    shown = []
    for ax, frames, title in ((true, rollout.frames, "true"), (nearest, rollout.nearest, "nearest to the rollout")):
        ax.set_axis_off()
        ax.set_title(title, fontsize=10)
        shown.append((ax.imshow(frames[0]), frames))
    time = rollout.dt * np.arange(len(rollout.frames))
    lines = [
        (trace.plot(time, values, color=colour, label=name, linewidth=1.4)[0], values)
        for colour, (name, values) in zip(("#0072B2", "#D55E00"), rollout.energies.items(), strict=False)
    ]
    finish(trace, "Energy, in its deviations over all clips", "time", "")
    if lines:
        trace.set_ylim(-3, 3)
        trace.legend(fontsize=8, frameon=False, loc="lower right")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    figure.set_layout_engine("none")  # The layout is found.

    def drawn(t: int) -> Image.Image:
        for image, frames in shown:
            image.set_data(frames[t])
        for line, values in lines:
            line.set_data(time[: t + 1], values[: t + 1])
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(64)

    first, *others = (drawn(t) for t in range(len(rollout.frames)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_at_once(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=DURATION, loop=0)
    return path


def _colours(energies: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    low, high = energies.min(), energies.max()
    return colormaps[COLOURS](0.9 * (energies - low) / (high - low if high > low else 1))


def _window(ax, cloud: np.ndarray) -> None:
    """Limits that hold a cloud [..., 2]: diverging rollouts leave it."""
    low, high = cloud.reshape(-1, 2).min(axis=0), cloud.reshape(-1, 2).max(axis=0)
    margin = 0.08 * (high - low) + 1e-9
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])
