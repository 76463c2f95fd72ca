"""The two animations of a system: the orbit with its energy, and the orbit on the energy surface."""

import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
from PIL import Image

from hamjepa_jax import files
from hamjepa_jax.physics import canvas, rollouts
from hamjepa_jax.physics.figures import METHOD_COLOUR, METHOD_LABEL, METHOD_LINE, P_LABEL, TIME_LABEL
from hamjepa_jax.physics.systems import System

ENERGY_LABEL = "H (dimensionless)"
METHODS = ("euler", "leapfrog")
FRAMES_PER_SECOND = 20
NUM_FRAMES = 100
# Of the window's half-width: the leapfrog orbit is clearly anharmonic there, Euler's spiral stays in sight.
START = 0.3


def write_animations(system: System, out: pathlib.Path) -> dict[str, str]:
    """Writes orbit.gif and energy_surface.gif into `out`, and .mp4 beside them where ffmpeg is on the path.

    Returns:
      Captions by name.
    """
    start = np.array(START * system.q_max), np.array(0.0)
    step = dict(step_size=system.step_size, num_steps=system.num_steps)
    paths = {m: rollouts.rollout(system, *start, method=m, **step) for m in METHODS}
    energies = {m: rollouts.energy(system, *paths[m]) for m in METHODS}
    with canvas.styled():
        _write(_orbit_frames(system, paths, energies), out / "orbit")
        _write(_surface_frames(system, paths, energies), out / "energy_surface")
    start_words = f"from (q, p) = ({float(start[0]):.3g}, 0), {system.num_steps} steps of Δt = {system.step_size:g}"
    growth = energies["euler"][-1] / energies["euler"][0]
    return {
        "orbit": f"Left: orbits {start_words}, over level lines of the energy. Right: the energy against time. "
        f"Leapfrog stays by its level line; explicit Euler spirals outwards and ends with {growth:.2g} times the "
        "energy it started with.",
        "energy_surface": f"The same orbits {start_words} on the graph of the energy H(q, p): leapfrog goes round "
        "at one height, explicit Euler climbs.",
    }


def _frame_steps(system: System) -> np.ndarray:
    return np.linspace(0, system.num_steps, NUM_FRAMES).round().astype(int)


def _window_with(system: System, paths):
    """Half-widths (q, p) that hold the window and the orbits."""
    q = max(np.abs(q).max() for q, _ in paths.values())
    p = max(np.abs(p).max() for _, p in paths.values())
    return max(1.1 * q, 0.6 * system.q_max), max(1.1 * p, 0.6 * system.p_max)


def _orbit_frames(system: System, paths, energies) -> Iterator[np.ndarray]:
    figure, (plane, trace) = canvas.new_figure(8.0, 3.6, 1, 2)
    q_max, p_max = _window_with(system, paths)
    q, p = np.meshgrid(np.linspace(-q_max, q_max, 121), np.linspace(-p_max, p_max, 121), indexing="ij")
    levels = np.linspace(0.0, rollouts.energy(system, q, p).max(), 16)
    plane.contour(q, p, rollouts.energy(system, q, p), levels, colors=canvas.MASKED, linewidths=0.6)
    plane.set(xlabel=system.q_label, ylabel=P_LABEL, title="orbit")
    times = system.step_size * np.arange(system.num_steps + 1)
    top = max(e.max() for e in energies.values())
    trace.set(xlabel=TIME_LABEL, ylabel=ENERGY_LABEL, title="energy", xlim=(0, times[-1]), ylim=(0, 1.08 * top))
    tails, heads, traces = {}, {}, {}
    for m in METHODS:
        colour = METHOD_COLOUR[m]
        (tails[m],) = plane.plot([], [], METHOD_LINE[m], color=colour, linewidth=1.2)
        (heads[m],) = plane.plot([], [], "o", color=colour, markersize=6)
        (traces[m],) = trace.plot([], [], METHOD_LINE[m], color=colour, label=METHOD_LABEL[m])
    trace.legend(loc="upper left")
    figure.suptitle(f"{system.title}, {system.formula}")
    for i in _frame_steps(system):
        for m, (q, p) in paths.items():
            tails[m].set_data(q[: i + 1], p[: i + 1])
            heads[m].set_data(q[i : i + 1], p[i : i + 1])
            traces[m].set_data(times[: i + 1], energies[m][: i + 1])
        yield _pixels(figure)


def _surface_frames(system: System, paths, energies) -> Iterator[np.ndarray]:
    figure, axis = canvas.new_figure(5.6, 4.6, subplot_kw=dict(projection="3d", computed_zorder=False))
    q_max, p_max = _window_with(system, paths)
    q, p = np.meshgrid(np.linspace(-q_max, q_max, 45), np.linspace(-p_max, p_max, 45), indexing="ij")
    surface = rollouts.energy(system, q, p)
    axis.plot_surface(q, p, surface, cmap=canvas.SEQUENTIAL, alpha=0.55, linewidth=0, zorder=1)
    axis.set(xlabel=system.q_label, ylabel=P_LABEL, zlabel=ENERGY_LABEL)
    axis.set_box_aspect(None, zoom=0.85)  # room for the labels as the view turns
    axis.locator_params(nbins=5)
    tails, heads = {}, {}
    for m in METHODS:
        colour = METHOD_COLOUR[m]
        (tails[m],) = axis.plot([], [], [], METHOD_LINE[m], color=colour, label=METHOD_LABEL[m], zorder=3)
        (heads[m],) = axis.plot([], [], [], "o", color=colour, markersize=7, zorder=4)
    axis.legend(loc="upper left")
    figure.suptitle(f"{system.title}: orbits on the energy surface")
    for i in _frame_steps(system):
        axis.view_init(elev=38, azim=-60 + 50 * i / system.num_steps)
        for m, (q, p) in paths.items():
            tails[m].set_data_3d(q[: i + 1], p[: i + 1], energies[m][: i + 1])
            heads[m].set_data_3d(q[i : i + 1], p[i : i + 1], energies[m][i : i + 1])
        yield _pixels(figure)


def _pixels(figure) -> np.ndarray:
    figure.canvas.draw()
    figure.set_layout_engine("none")  # settled by the first frame; a title must not make later ones jump
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _write(frames: Iterator[np.ndarray], stem: pathlib.Path) -> None:
    frames = list(frames)
    # One palette for all frames, so that the GIF stores changes only; its almost-white becomes the paper's white.
    palette = Image.fromarray(frames[-1]).quantize(64)
    colours = np.reshape(palette.getpalette(), (-1, 3))
    colours[colours.min(axis=1) > 245] = 255
    palette.putpalette(colours.ravel().tolist())
    images = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    with files.written_at_once(stem.with_suffix(".gif")) as temporary:
        images[0].save(
            temporary,
            format="gif",
            save_all=True,
            append_images=images[1:],
            duration=1000 // FRAMES_PER_SECOND,
            loop=0,
            optimize=False,
        )
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        return
    height, width = (n - n % 2 for n in frames[0].shape[:2])  # the usual codecs take even sizes only
    raw = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {FRAMES_PER_SECOND} -i -"
    command = [ffmpeg, *f"-y -loglevel error {raw} -an -pix_fmt yuv420p -f mp4".split()]
    pixels = b"".join(f[:height, :width].tobytes() for f in frames)
    try:
        with files.written_at_once(stem.with_suffix(".mp4")) as temporary:
            subprocess.run([*command, str(temporary)], input=pixels, capture_output=True, check=True)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        print(f"{stem.name}.mp4 was not written, ffmpeg failed: {reason}")
