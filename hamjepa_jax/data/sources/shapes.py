"""Ten shapes of random place, size, rotation and colours, drawn when they are opened; their factors are known."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hamjepa_jax.data.sources.options import Option, numbers_of, parted
from hamjepa_jax.data.split import ArraySplit, Factor, Source, SourceOptions, source_error
from hamjepa_jax.errors import UserError
from hamjepa_jax.parts import sources

FORM = "shapes[:N][?test=M&difficulty=D&seed=S]"
SIDE = 32
SIZES = 0.2, 0.36  # Least and largest radius of the circle around a shape, in sides of the image.
LUMA = 0.3, 0.7  # Of the shape and of the background, in either order.
CHROMA = 0.25  # So small that every hue of these lumas, with the largest gradient, is a colour.
GRADIENT_LUMA, GRADIENT_HUE = 0.15, 0.4  # Change of the background from side to side at difficulty 1.
NOISE = 0.01, 0.06  # Standard deviation of the noise at difficulty 0 and 1.
CHUNK = 64  # Images drawn at once; few stay within a core's cache.

Array = np.ndarray


class Request(NamedTuple):
    """Attributes:
    train: number of training images.
    test: number of test images.
    difficulty: 0 for plain backgrounds and little noise, 1 for strong gradients and much noise.
    seed: another one gives other images.
    """

    train: int = 5000
    test: int = 1000
    difficulty: float = 0.0
    seed: int = 0


@sources.register(
    "shapes", form=FORM, meaning="N drawn images (5,000) of ten shapes whose factors are known, 32 × 32 pixels"
)
def open_shapes(rest: str, options: SourceOptions) -> Source:
    """Opens "shapes", "shapes:N" or "shapes:N?test=M&difficulty=D&seed=S".

    Image i of a split is of class i mod 10 and a function of the seed, the split and i alone: with more images the
    first ones stay as they are. So is its scene with another difficulty.

    Raises:
      UserError: for an option that is unknown or out of bounds.
    """
    del options  # Nothing is fetched.
    request = _parse(rest)
    return Source(name="shapes", train=_split(request, request.train, 0), test=_split(request, request.test, 1))


def _parse(rest: str) -> Request:
    number, options = parted(rest)
    options = [Option(number, "train", number)] * bool(number) + options
    kinds = {name: type(default) for name, default in Request._field_defaults.items()}
    try:
        request = Request(**numbers_of(options, kinds))
    except ValueError:
        raise _refused(rest) from None
    if min(request.train, request.test) < len(SHAPES) or request.difficulty > 1:
        raise _refused(rest)
    return request


def _refused(rest: str) -> UserError:
    least = len(SHAPES)
    return source_error(
        f"shapes:{rest}",
        f"expected {FORM} with N and M of at least {least}, D from 0 to 1 and a whole number S, as in "
        f"shapes:5000?test=1000&difficulty=0.5.",
    )


def _split(request: Request, n: int, part: int) -> ArraySplit:
    labels = (np.arange(n) % len(SHAPES)).astype(np.int32)
    scene = _scene(labels, np.random.default_rng([request.seed, part, 0]))
    noise = np.random.default_rng([request.seed, part, 1])
    deviation = NOISE[0] + request.difficulty * (NOISE[1] - NOISE[0])
    images = np.empty((n, SIDE, SIDE, 3), np.uint8)
    for start in range(0, n, CHUNK):
        rows = slice(start, start + CHUNK)
        drawn = _draw({name: values[rows] for name, values in scene.items()}, request.difficulty)
        drawn += deviation * noise.standard_normal(drawn.shape, np.float32)
        images[rows] = np.round(255 * drawn.clip(0, 1))
    return ArraySplit(images, labels, tuple(SHAPES), factors=_factors(scene))


# -- Scenes -----------------------------------------------------------------------------------------------


def _scene(labels: Array, rng: np.random.Generator) -> dict[str, Array]:
    """All that an image shows but the noise, by name, each [n]: lengths in sides, hues and rotations in turns."""
    u = rng.random((len(labels), 8), np.float32).T  # An image's numbers follow one another: its own row.
    size = SIZES[0] + u[0] * (SIZES[1] - SIZES[0])
    return {
        "class": labels,
        "x": size + u[1] * (1 - 2 * size),  # The circle around the shape is within the image.
        "y": size + u[2] * (1 - 2 * size),
        "size": size,
        "rotation": u[3],  # As a share of the least turn that leaves the shape as it is.
        "hue": u[4],
        "background_hue": u[5],
        "bright": (u[6] < 0.5).astype(np.int32),  # Whether the shape is brighter than the background.
        "slope": u[7],  # Direction of the background's gradient.
    }


def _factors(scene: dict[str, Array]) -> dict[str, Factor]:
    turns = np.asarray([shape.symmetry for shape in SHAPES.values()])[scene["class"]]
    return {
        "class": Factor(scene["class"], "categorical"),
        **{name: Factor(scene[name], "linear") for name in ("x", "y", "size")},
        "rotation": Factor(np.where(turns, scene["rotation"], np.float32(np.nan)), "periodic"),
        **{name: Factor(scene[name], "periodic") for name in ("hue", "background_hue")},
        "bright": Factor(scene["bright"], "categorical"),
    }


def _draw(scene: dict[str, Array], difficulty: float) -> Array:
    """[n, SIDE, SIDE, 3] float32 images of n scenes, in [0, 1], without noise."""
    at = {name: values[:, None, None] for name, values in scene.items()}
    pixels = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    x, y = np.broadcast_arrays(pixels - at["x"], pixels[:, None] - at["y"])
    distance = np.empty_like(x)  # To the shape's edge, in radii; negative inside.
    for c, shape in enumerate(SHAPES.values()):
        rows = scene["class"] == c
        angle = 2 * np.pi * at["rotation"][rows] / max(shape.symmetry, 1)
        across = (x[rows] * np.cos(angle) + y[rows] * np.sin(angle)) / at["size"][rows]
        down = (y[rows] * np.cos(angle) - x[rows] * np.sin(angle)) / at["size"][rows]
        distance[rows] = shape.distance(across, down)
    covered = np.clip(0.5 - distance * at["size"] * SIDE, 0, 1)[..., None]  # The edge is one pixel wide.
    slope = 2 * np.pi * at["slope"]
    along = difficulty * (np.cos(slope) * (pixels - 0.5) + np.sin(slope) * (pixels[:, None] - 0.5))
    low, high = LUMA
    shape = color(at["hue"], np.where(at["bright"], high, low))
    luma = np.where(at["bright"], low, high) + GRADIENT_LUMA * along
    background = color(at["background_hue"] + GRADIENT_HUE * along, luma)
    return (covered * shape + (1 - covered) * background).astype(np.float32)


def color(hue: Array, luma: Array) -> Array:
    """[..., 3] of a hue in turns and a luma, all of one chroma."""
    away = hue[..., None] - np.float32([0, 1 / 3, 2 / 3])  # From red, green and blue.
    pure = np.clip(2 - 6 * np.abs(away - np.rint(away)), 0, 1)
    return luma[..., None] + CHROMA * (pure - pure @ np.float32([[0.299], [0.587], [0.114]]))


# -- Shapes, in a circle of radius 1 ----------------------------------------------------------------------


def _disc(x: Array, y: Array, radius: float = 1.0) -> Array:
    return np.hypot(x, y) - radius


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - 0.8) - 0.2


def _crescent(x: Array, y: Array) -> Array:
    return np.maximum(_disc(x, y), -_disc(x - 0.5, y, 0.8))


def _dumbbell(x: Array, y: Array) -> Array:
    bar = np.maximum(np.abs(x) - 0.6, np.abs(y) - 0.14)
    return np.minimum(_disc(np.abs(x) - 0.62, y, 0.38), bar)


def _polygon(*corners: tuple[float, float]) -> Callable[[Array, Array], Array]:
    """The distance to a polygon's edge. Inside, a ray to the right crosses the edge an odd number of times."""
    ends = np.float32(corners)

    def distance(x: Array, y: Array) -> Array:
        nearest, inside = np.full_like(x, np.inf), np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in zip(ends, np.roll(ends, -1, axis=0), strict=True):
            dx, dy = bx - ax, by - ay
            share = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)).clip(0, 1)
            nearest = np.minimum(nearest, (x - ax - share * dx) ** 2 + (y - ay - share * dy) ** 2)
            if dy != 0:
                inside ^= ((y < ay) != (y < by)) & (x < ax + (y - ay) * (dx / dy))
        return np.where(inside, -1, 1).astype(np.float32) * np.sqrt(nearest)

    return distance


def _regular(corners: int, radii: tuple[float, ...] = (1.0,)) -> Callable[[Array, Array], Array]:
    """A polygon whose corners stand at equal angles around the centre, at these radii in turn."""
    angles = 2 * np.pi * np.arange(corners) / corners
    radius = np.resize(radii, corners)
    return _polygon(*zip(radius * np.sin(angles), -radius * np.cos(angles), strict=True))


class Shape(NamedTuple):
    """Attributes:
    distance: (x, y) -> distance to the edge, negative inside.
    symmetry: how many turns of a circle leave it as it is; 0 for all.
    """

    distance: Callable[[Array, Array], Array]
    symmetry: int


_ARM, _TIP = 0.3, 0.95
_CROSS = [(_ARM, _TIP), (_ARM, _ARM), (_TIP, _ARM), (_TIP, -_ARM), (_ARM, -_ARM), (_ARM, -_TIP)]
_L = [(-0.6, -0.8), (-0.1, -0.8), (-0.1, 0.3), (0.6, 0.3), (0.6, 0.8), (-0.6, 0.8)]
_ARROW = [(1, 0), (0.1, 0.8), (0.1, 0.27), (-0.95, 0.27), (-0.95, -0.27), (0.1, -0.27), (0.1, -0.8)]
SHAPES = {
    "disc": Shape(_disc, 0),
    "square": Shape(_regular(4), 4),
    "triangle": Shape(_regular(3), 3),
    "star": Shape(_regular(10, (1.0, 0.42)), 5),
    "cross": Shape(_polygon(*_CROSS, *((-x, -y) for x, y in _CROSS)), 4),
    "ring": Shape(_ring, 0),
    "crescent": Shape(_crescent, 1),
    "L": Shape(_polygon(*_L), 1),
    "arrow": Shape(_polygon(*_ARROW), 1),
    "dumbbell": Shape(_dumbbell, 2),
}
