"""The drawn shapes: the same images for the same options, and factors that the images show."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from hamjepa_jax.data import ArraySplit, Factor, check_source, factors_of, open_source
from hamjepa_jax.data.sources import shapes
from hamjepa_jax.errors import UserError


@pytest.fixture(scope="module")
def source():
    return open_source("shapes:400?test=100")


def values(split):
    return {name: factor.values for name, factor in factors_of(split).items()}


def luma(images):
    return images @ np.asarray([0.299, 0.587, 0.114]) / 255


def pixels():
    """x and y of the pixels' centres, in sides of the image."""
    centres = (np.arange(32) + 0.5) / 32
    return np.meshgrid(centres, centres)


# -- The same images for the same options -----------------------------------------------------------------


def test_images_are_a_function_of_seed_split_and_index(source, monkeypatch):
    check_source(source)
    assert (len(source.train), len(source.test)) == (400, 100) and source.train.image_shape == (32, 32, 3)
    assert_array_equal(source.train.labels, np.arange(400) % 10)
    assert open_source("shapes:400?test=100&seed=0").fingerprint() == source.fingerprint()
    assert open_source("shapes:400?test=100&seed=1").fingerprint() != source.fingerprint()
    assert not (source.train.images[:100] == source.test.images).all(axis=(1, 2, 3)).any()
    monkeypatch.setattr(shapes, "CHUNK", 64)
    fewer = open_source("shapes:110?test=10").train
    assert_array_equal(fewer.images, source.train.images[:110])
    for name, factor in factors_of(fewer).items():
        assert_array_equal(factor.values, factors_of(source.train)[name].values[:110])
    assert len(open_source("shapes").train) == 5000


def test_difficulty_changes_backgrounds_and_noise_alone(source):
    hard = open_source("shapes:400?difficulty=1").train
    for name, known in values(source.train).items():
        assert_array_equal(values(hard)[name], known)

    background = outside(source.train)
    for split, noise in ((source.train, shapes.NOISE[0]), (hard, shapes.NOISE[1])):
        neighbours = np.diff(split.images / 255.0, axis=2)[background[:, :, 1:] & background[:, :, :-1]]
        assert_allclose(neighbours.std() / np.sqrt(2), noise, rtol=0.05)
    plain, gradient = (_spread(split, background) for split in (source.train, hard))
    assert plain.max() < 0.02 and np.quantile(gradient, 0.1) > 0.08


def _spread(split, where):
    """The deviation of each image's background."""
    return np.asarray([image[w].std(axis=0).max() for image, w in zip(split.images / 255.0, where, strict=True)])


@pytest.mark.parametrize(
    "rest",
    ["9", "-20", "many", "100.5", "100?test=5", "100?difficulty=1.5", "100?difficulty=nan", "100?tests=20", "1e3",
     "100?test=20&test=20", "100?seed=1.5", "100?train=20", "100?difficulty", "100x32", "0", "１００"],
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused_in_one_sentence(rest):
    with pytest.raises(UserError, match=r"expected shapes\[:N\]\[\?test=M.* as in shapes:5000\?test=1000") as error:
        open_source(f"shapes:{rest}")
    assert str(error.value).startswith(f'data.source "shapes:{rest}": ') and "\n" not in str(error.value)


# -- Factors are what the images show ---------------------------------------------------------------------


def covered(split):
    """How much of each pixel the shape covers, by its luma: [n, 32, 32], about 0 … 1."""
    known = values(split)
    background = np.where(known["bright"] == 1, shapes.LUMA[0], shapes.LUMA[1])[:, None, None]
    return (luma(split.images) - background) / (shapes.LUMA[1] - shapes.LUMA[0]) * np.sign(0.5 - background)


def outside(split):
    """Whether a pixel is outside the circle around the shape: [n, 32, 32]."""
    known = {name: value[:, None, None] for name, value in values(split).items()}
    x, y = pixels()
    return np.hypot(x - known["x"], y - known["y"]) > known["size"] + 1 / 32


def test_place_and_size_are_those_of_the_images(source):
    known, mask = values(source.train), covered(source.train)
    x, y = pixels()
    assert np.abs(mask[outside(source.train)]).max() < 0.2  # Noise alone.
    for name, area in (("disc", np.pi), ("square", 2), ("triangle", 3 * np.sqrt(3) / 4), ("ring", np.pi * 0.64)):
        rows = known["class"] == source.train.class_names.index(name)
        weight = mask[rows].sum(axis=(1, 2))
        assert_allclose((weight / 32**2) / known["size"][rows] ** 2, area, rtol=0.04)
        for place, at in (("x", x), ("y", y)):
            assert_allclose((mask[rows] * at).sum(axis=(1, 2)) / weight, known[place][rows], atol=0.01)


def test_rotation_is_that_of_the_images_and_absent_where_none_is_to_be_seen(source):
    known, mask = values(source.train), covered(source.train).clip(0.1, 1) - 0.1  # Without the noise outside.
    x, y = pixels()
    x, y = x - known["x"][:, None, None], y - known["y"][:, None, None]
    round_ones = np.isin(known["class"], [source.train.class_names.index(name) for name in ("disc", "ring")])
    assert_array_equal(np.isnan(known["rotation"]), round_ones)
    # The dumbbell's axis by its second moments, the crescent's hollow side by its first.
    of = {name: known["class"] == source.train.class_names.index(name) for name in ("dumbbell", "crescent")}
    xx, yy, xy = (((mask * a).sum(axis=(1, 2))) for a in (x * x, y * y, x * y))
    axis = np.arctan2(2 * xy, xx - yy) / (2 * np.pi)
    assert_allclose(_turns(axis - known["rotation"])[of["dumbbell"]], 0, atol=0.02)
    side = np.arctan2((mask * -y).sum(axis=(1, 2)), (mask * -x).sum(axis=(1, 2))) / (2 * np.pi)
    assert_allclose(_turns(side - known["rotation"])[of["crescent"]], 0, atol=0.02)


def test_hues_are_those_of_the_images(source):
    known, mask = values(source.train), covered(source.train)
    for name, where in (("hue", mask > 0.97), ("background_hue", outside(source.train))):
        colors = np.stack([image[w].mean(axis=0) for image, w in zip(source.train.images, where, strict=True)])
        assert_allclose(_turns(_hue(colors) - known[name]), 0, atol=0.03)


def _hue(colors):
    """Hue in turns, by the angle in the plane of equal sums."""
    red, green, blue = colors.T
    low, high = colors.min(axis=1), colors.max(axis=1)
    sixths = np.select(
        [red == high, green == high],
        [(green - blue) / (high - low), 2 + (blue - red) / (high - low)],
        4 + (red - green) / (high - low),
    )
    return sixths / 6


def _turns(difference):
    """To the nearest whole turn."""
    return (difference + 0.5) % 1 - 0.5


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_the_symmetry_is_the_least_turn_that_leaves_a_shape(name):
    shape = shapes.SHAPES[name]
    x, y = (2.4 * a.astype(np.float32) - 1.2 for a in pixels())

    def turned(turns):
        cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
        return shape.distance(cos * x - sin * y, sin * x + cos * y)

    assert turned(0).min() < -0.1  # Something is inside.
    assert (turned(0)[np.hypot(x, y) > 1.01] > 0).all()  # And within the circle.
    if shape.symmetry == 0:
        assert_allclose(turned(0.123), turned(0), atol=1e-5)
        return
    assert_allclose(turned(1 / shape.symmetry), turned(0), atol=1e-5)
    for part in (2, 3, 5):
        assert np.abs(turned(1 / shape.symmetry / part) - turned(0)).max() > 0.05


def test_polygons_have_the_distance_to_their_edge():
    square = shapes.SHAPES["square"].distance  # Its corners are on the axes.
    at = np.float32([[0, 0], [1, 0], [2, 0], [0, -1.5], [0.5, 0.5], [1, 1], [0.25, 0.25]])
    diagonal = np.sqrt(0.5)
    expected = [-diagonal, 0, 1, 0.5, 0, diagonal, -diagonal / 2]
    assert_allclose(square(at[:, 0], at[:, 1]), expected, atol=1e-6)


# -- Factors of any split ---------------------------------------------------------------------------------


def test_factors_are_checked_and_absent_from_other_sources():
    assert factors_of(open_source("digits").train) == {}
    images, labels = np.zeros((4, 2, 2, 3), np.uint8), np.zeros(4, np.int32)
    two = Factor(np.zeros((4, 2)), "linear")
    assert ArraySplit(images, labels, ("a",), factors={"place": two}).factors["place"] is two
    with pytest.raises(ValueError, match=r"factor 'place' has values \(3,\) for 4 images"):
        ArraySplit(images, labels, ("a",), factors={"place": Factor(np.zeros(3), "linear")})
    with pytest.raises(ValueError, match="must be one of categorical, linear, periodic, got 'circular'"):
        Factor(np.zeros(4), "circular")
    for wrong in (np.zeros(4), np.asarray([0, -1])):
        with pytest.raises(ValueError, match="whole numbers from 0"):
            Factor(wrong, "categorical")
