"""Clips of mechanical systems, drawn when they are opened; the true states, energies and time step are known."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hamjepa_jax.data.sources.options import numbers_of, parted
from hamjepa_jax.data.sources.shapes import CHUNK, LUMA, SIDE, color
from hamjepa_jax.data.split import ClipSplit, Factor, Source, SourceOptions, source_error
from hamjepa_jax.errors import UserError
from hamjepa_jax.parts import sources

FORM = "trajectories:SYSTEM[?train=N&test=M&frames=T&test_frames=U&dt=D&friction=F&color=0|1&size=0|1&seed=S]"
BINS = 10  # Of the energy: the classes.
LONGEST_STEP = 0.1  # Of the integrator.
START_TIMES = 20.0  # A clip begins at a random time up to this one after a turning point.
RADIUS, RADII = 0.1, (0.07, 0.13)  # Of a body in sides of the image: as it is, and where it varies.
HUE, BACKGROUND_HUE = 0.1, 0.6  # Where colours do not vary.
ROD = 0.015  # Half a rod's width, in sides of the image.

Array = np.ndarray


class Request(NamedTuple):
    """Attributes:
    train: number of training clips.
    test: number of test clips.
    frames: of a training clip.
    test_frames: of a test clip, which rollouts are compared with.
    dt: time from one frame to the next; small oscillations of most systems take 2π.
    friction: γ in dp/dt = −∂V/∂q − γp; 0 conserves the energy.
    color: 1 for bodies and backgrounds of random hue, one for each clip.
    size: 1 for bodies of random size.
    seed: another one gives other clips.
    """

    train: int = 1000
    test: int = 200
    frames: int = 16
    test_frames: int = 64
    dt: float = 0.2
    friction: float = 0.0
    color: int = 0
    size: int = 0
    seed: int = 0


@sources.register(
    "trajectories",
    form=FORM,
    meaning="clips of a system whose states are known (the guide to clips lists them), 32 × 32 pixels",
)
def open_trajectories(rest: str, options: SourceOptions) -> Source:
    """Opens "trajectories:SYSTEM?…", SYSTEM one of `SYSTEMS`.

    Clip i of a split is a function of the seed, the split and i alone. Its energy at its start is uniform in the
    (i mod 10)-th tenth of the system's range, which is its class; it begins at a random time of its orbit.

    Raises:
      UserError: for an unknown system, or an option that is unknown or out of bounds.
    """
    del options  # Nothing is fetched.
    name, request = _parse(rest)
    train = _split(SYSTEMS[name], request, request.train, request.frames, 0)
    test = _split(SYSTEMS[name], request, request.test, request.test_frames, 1)
    return Source(name=f"trajectories of {name}", train=train, test=test)


def _parse(rest: str) -> tuple[str, Request]:
    name, options = parted(rest)
    if name not in SYSTEMS:
        raise source_error(
            f"trajectories:{rest}",
            f"there is no system {name!r}; expected one of {', '.join(SYSTEMS)}, as in trajectories:pendulum.",
        )
    kinds = {name: type(default) for name, default in Request._field_defaults.items()}
    try:
        r = Request(**numbers_of(options, kinds))
    except ValueError:
        raise _refused(rest) from None
    sizes = min(r.train, r.test) >= BINS and min(r.frames, r.test_frames) >= 1 and r.friction <= 1
    if not sizes or not 0 < r.dt <= 10 or max(r.color, r.size) > 1:
        raise _refused(rest)
    time, most = r.dt * (max(r.frames, r.test_frames) - 1), SYSTEMS[name].most_damped
    if r.friction * time > most:
        raise source_error(
            f"trajectories:{rest}",
            f"in the {time:g} units of time of a clip this friction lets the bodies fall on each other; use at "
            f"most {np.floor(1e4 * most / time) / 1e4:g}, or shorter clips.",
        )
    return name, r


def _refused(rest: str) -> UserError:
    return source_error(
        f"trajectories:{rest}",
        f"expected {FORM} with N and M of at least {BINS}, D above 0 and up to 10, F from 0 to 1, as in "
        f"trajectories:pendulum?train=1000&dt=0.2.",
    )


# -- Systems: unit mass, units of time in which they move at a frequency near 1 ----------------------------


class System(NamedTuple):
    """H = ½‖p‖² + V(q).

    Attributes:
      potential: V, [n, d] -> [n].
      force: −∂V/∂q, [n, d] -> [n, d].
      energies: least and largest energy of a clip's start; uniform between them.
      start: (energies [n], u [n, 3] uniform in [0, 1)) -> (q, p) [n, d] of these energies.
      bodies: q [n, d] -> (centres of the discs [n, k, 2], ends of the rods [n, r, 2, 2]), in sides of the image.
      radii: of the discs, as a share of a body's.
      tints: turns of hue from a body's to each disc's; later tints are drawn over earlier ones.
      most_damped: friction × time up to which states are integrated to 1e-10.
    """

    potential: Callable[[Array], Array]
    force: Callable[[Array], Array]
    energies: tuple[float, float]
    start: Callable[[Array, Array], tuple[Array, Array]]
    bodies: Callable[[Array], tuple[Array, Array]]
    radii: tuple[float, ...] = (1.0,)
    tints: tuple[float, ...] = (0.0,)
    most_damped: float = np.inf


def _from_rest(turning_point: Callable[[Array], Array]) -> Callable[[Array, Array], tuple[Array, Array]]:
    """A start without momentum, at the turning point of an energy on either side."""

    def start(energies: Array, u: Array) -> tuple[Array, Array]:
        q = np.where(u[:, 0] < 0.5, -1, 1) * turning_point(energies)
        return q[:, None], np.zeros((len(q), 1))

    return start


def _apocentre(energies: Array, u: Array) -> tuple[Array, Array]:
    """Farthest from each other, in a random direction, on an orbit of eccentricity up to ½ in either sense."""
    axis, eccentricity, angle = -0.5 / energies, 0.5 * u[:, 1], 2 * np.pi * u[:, 2]
    far = axis * (1 + eccentricity)
    speed = np.sqrt((1 - eccentricity) / far) * np.where(u[:, 0] < 0.5, -1, 1)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    return far[:, None] * along, speed[:, None] * across


def _swinging(q: Array) -> tuple[Array, Array]:
    """A bob on a rod from the centre, straight down at q = 0."""
    bob = 0.5 + 0.34 * np.stack([np.sin(q[:, 0]), np.cos(q[:, 0])], axis=1)
    return bob[:, None], np.stack([np.full_like(bob, 0.5), bob], axis=1)[:, None]


def _sliding(scale: float) -> Callable[[Array], tuple[Array, Array]]:
    """A body that moves left and right, on a rod from the left edge."""

    def bodies(q: Array) -> tuple[Array, Array]:
        body = np.stack([0.5 + scale * q[:, 0], np.full(len(q), 0.5)], axis=1)
        return body[:, None], np.stack([np.broadcast_to([0.0, 0.5], body.shape), body], axis=1)[:, None]

    return bodies


def _facing(q: Array) -> tuple[Array, Array]:
    """Two bodies of equal mass around the centre of the image; q is from one to the other."""
    return 0.5 + 0.4 * np.stack([-q / 2, q / 2], axis=1), np.empty((len(q), 0, 2, 2))


def _half_square(x: Array) -> Array:
    return 0.5 * np.square(x).sum(axis=1)


SYSTEMS = {
    "pendulum": System(
        potential=lambda q: 1 - np.cos(q[:, 0]),
        force=lambda q: -np.sin(q),
        energies=(0.05, 1.5),  # It turns over at 2.
        start=_from_rest(lambda e: np.arccos(1 - e)),
        bodies=_swinging,
    ),
    "spring": System(
        potential=_half_square,
        force=lambda q: -q,
        energies=(0.05, 1.0),
        start=_from_rest(lambda e: np.sqrt(2 * e)),
        bodies=_sliding(0.24),
    ),
    "duffing": System(
        potential=lambda q: (0.5 * q**2 + 0.25 * q**4)[:, 0],
        force=lambda q: -q - q**3,
        energies=(0.05, 2.0),
        start=_from_rest(lambda e: np.sqrt(np.sqrt(1 + 4 * e) - 1)),
        bodies=_sliding(0.24),
    ),
    "double_well": System(
        potential=lambda q: (0.25 * (q**2 - 1) ** 2)[:, 0],
        force=lambda q: q - q**3,
        energies=(0.02, 0.6),  # Between the wells, V is 0.25.
        start=_from_rest(lambda e: np.sqrt(1 + 2 * np.sqrt(e))),
        bodies=_sliding(0.21),
    ),
    "two_body": System(
        potential=lambda q: -1 / np.linalg.norm(q, axis=1),
        force=lambda q: -q / np.linalg.norm(q, axis=1, keepdims=True) ** 3,
        energies=(-0.65, -0.42),
        start=_apocentre,
        bodies=_facing,
        radii=(1.0, 0.6),  # Alike, q and −q would look the same.
        tints=(0.0, 0.4),
        most_damped=0.125,  # Orbits shrink, and their frequency grows without bound.
    ),
}


# -- Motion -----------------------------------------------------------------------------------------------


def advanced(
    system: System, q: Array, p: Array, time: float | Array, *, friction: float = 0.0
) -> tuple[Array, Array]:
    """The state [n, d] of each trajectory after a time, or [n, 1] after its own, in float64.

    Gauss-Legendre collocation of order 2·STAGES, which is symplectic without friction. The number of iterations is
    fixed: no trajectory depends on the others.
    """
    number = max(1, int(np.ceil(np.max(np.abs(time)) / LONGEST_STEP)))
    step = np.asarray(time) / number
    for _ in range(number):
        slopes_q = np.broadcast_to(p, (STAGES, *p.shape))
        for _ in range(ITERATIONS):
            at = q + step * np.tensordot(_STAGE_WEIGHTS, slopes_q, 1)
            force = system.force(at.reshape(-1, q.shape[1])).reshape(at.shape)
            slopes_p = force - friction * slopes_q
            slopes_q = p + step * np.tensordot(_STAGE_WEIGHTS, slopes_p, 1)
        q = q + step * np.tensordot(_WEIGHTS, slopes_q, 1)
        p = p + step * np.tensordot(_WEIGHTS, slopes_p, 1)
    return q, p


def _collocation(stages: int) -> tuple[Array, Array]:
    """Weights [s, s] of the slopes at the stages up to each stage, and [s] up to the end of a step of length 1."""
    nodes = (np.polynomial.legendre.leggauss(stages)[0] + 1) / 2
    powers = np.arange(1, stages + 1)
    coefficients = np.linalg.inv(nodes[:, None] ** (powers - 1))
    return (nodes[:, None] ** powers / powers) @ coefficients, (1 / powers) @ coefficients


STAGES, ITERATIONS = 6, 14
_STAGE_WEIGHTS, _WEIGHTS = _collocation(STAGES)


def energy(system: System, q: Array, p: Array) -> Array:
    """H of states [n, d], [n]."""
    return _half_square(p) + system.potential(q)


def _motion(system: System, request: Request, labels: Array, u: Array, frames: int) -> tuple[Array, Array]:
    """(states [n, T, 2d], energies [n, T]) of clips; u [n, 5] uniform in [0, 1)."""
    low, high = system.energies
    start = system.start(low + (high - low) * (labels + u[:, 0]) / BINS, u[:, 1:4])
    q, p = advanced(system, *start, START_TIMES * u[:, 4:])
    states, energies = [], []
    for frame in range(frames):
        if frame:
            q, p = advanced(system, q, p, request.dt, friction=request.friction)
        states.append(np.concatenate([q, p], axis=1))
        energies.append(energy(system, q, p))
    return np.stack(states, axis=1), np.stack(energies, axis=1)


# -- Pictures ---------------------------------------------------------------------------------------------


def _split(system: System, request: Request, n: int, frames: int, part: int) -> ClipSplit:
    labels = (np.arange(n) % BINS).astype(np.int32)
    u = np.random.default_rng([request.seed, part]).random((n, 8))  # A clip's numbers are its own row.
    states, energies = _motion(system, request, labels, u[:, :5], frames)
    look = {
        "hue": u[:, 5] if request.color else np.full(n, HUE),
        "background_hue": u[:, 6] if request.color else np.full(n, BACKGROUND_HUE),
        "size": RADII[0] + u[:, 7] * (RADII[1] - RADII[0]) if request.size else np.full(n, RADIUS),
    }
    q = states[..., : states.shape[-1] // 2]
    return ClipSplit(
        _clips(system, q, {name: values.astype(np.float32) for name, values in look.items()}),
        labels,
        _class_names(system),
        factors=_factors(request, states, energies, look),
        states=states,
        energies=energies,
        dt=request.dt,
    )


def _class_names(system: System) -> tuple[str, ...]:
    edges = np.linspace(*system.energies, BINS + 1)
    return tuple(f"energy {low:.3f} to {high:.3f}" for low, high in itertools.pairwise(edges))


def _factors(request: Request, states: Array, energies: Array, look: dict[str, Array]) -> dict[str, Factor]:
    """What the first frame shows, and the momentum there."""
    position, momentum = np.split(states[:, 0], 2, axis=1)
    found = {"position": position, "momentum": momentum, "energy": energies[:, 0]}
    found = {name: Factor(values, "linear") for name, values in found.items()}
    if request.color:
        found |= {name: Factor(look[name], "periodic") for name in ("hue", "background_hue")}
    return found | ({"size": Factor(look["size"], "linear")} if request.size else {})


def _clips(system: System, q: Array, look: dict[str, Array]) -> Array:
    """[n, T, SIDE, SIDE, 3] uint8 of positions [n, T, d]."""
    n, frames = q.shape[:2]
    discs, rods = (x.astype(np.float32) for x in system.bodies(q.reshape(n * frames, -1)))
    of_frame = {name: np.repeat(values, frames) for name, values in look.items()}
    images = np.empty((n * frames, SIDE, SIDE, 3), np.uint8)
    for first in range(0, len(images), CHUNK):
        rows = slice(first, first + CHUNK)
        drawn = _draw(system, discs[rows], rods[rows], {name: values[rows] for name, values in of_frame.items()})
        images[rows] = np.round(255 * drawn)
    return images.reshape(n, frames, SIDE, SIDE, 3)


def _draw(system: System, discs: Array, rods: Array, look: dict[str, Array]) -> Array:
    """[n, SIDE, SIDE, 3] float32 in [0, 1], with edges one pixel wide; rods have the first body's colour."""
    pixels = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    x, y = np.broadcast_arrays(pixels, pixels[:, None])
    at = {name: values[:, None, None] for name, values in look.items()}
    # To the nearest edge of what has a tint; negative inside.
    distances = {tint: np.full((len(discs), SIDE, SIDE), np.inf, np.float32) for tint in system.tints}
    for number, (radius, tint) in enumerate(zip(system.radii, system.tints, strict=True)):
        centre = discs[:, number, :, None, None]
        distance = np.hypot(x - centre[:, 0], y - centre[:, 1]) - radius * at["size"]
        distances[tint] = np.minimum(distances[tint], distance)
    for number in range(rods.shape[1]):
        distance = _to_segment(x, y, rods[:, number]) - ROD
        distances[system.tints[0]] = np.minimum(distances[system.tints[0]], distance)
    low, high = LUMA
    drawn = color(at["background_hue"], np.float32(low))
    for tint, distance in distances.items():
        covered = np.clip(0.5 - distance * SIDE, 0, 1)[..., None]
        drawn = covered * color((at["hue"] + np.float32(tint)) % 1, np.float32(high)) + (1 - covered) * drawn
    return drawn


def _to_segment(x: Array, y: Array, ends: Array) -> Array:
    """Distances [n, h, w] of pixels to segments between `ends` [n, 2, 2]."""
    (ax, ay), (bx, by) = (ends[:, i, :, None, None].swapaxes(0, 1) for i in (0, 1))
    dx, dy = bx - ax, by - ay
    share = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)).clip(0, 1)
    return np.hypot(x - ax - share * dx, y - ay - share * dy)
