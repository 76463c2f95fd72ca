"""Random views: reproducible per example, distributed as torchvision's, one program on any number of devices."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from hamjepa_jax.data import augment
from hamjepa_jax.data.images import views

GLOBAL = views.ViewSpec(
    size=16,
    scale=(0.3, 1.0),
    ratio=(3 / 4, 4 / 3),
    flip_prob=0.5,
    jitter_prob=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grayscale_prob=0.2,
    blur_prob=0.5,
    blur_sigma=(0.1, 2.0),
    blur_kernel=3,
    solarize_prob=0.2,
    solarize_threshold=128 / 255,
)
LOCAL = dataclasses.replace(GLOBAL, size=8, scale=(0.05, 0.3))
NOTHING = dataclasses.replace(
    GLOBAL, flip_prob=0.0, jitter_prob=0.0, grayscale_prob=0.0, blur_prob=0.0, solarize_prob=0.0
)
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def random_images(n, shape=(20, 24)):
    return np.random.default_rng(n).integers(0, 256, (n, *shape, 3), dtype=np.uint8)


@jax.jit
def global_and_local(images, ids, epoch):
    specs = ((GLOBAL, 2), (LOCAL, 3))
    return views.make_views(images, ids, seed=7, epoch=epoch, specs=specs, mean=MEAN, std=STD)


@functools.partial(jax.jit, static_argnums=2)
def one_global(images, ids, seed):
    return views.make_views(images, ids, seed=seed, epoch=3, specs=((GLOBAL, 1),), mean=MEAN, std=STD)[0]


# -- Reproducibility and layout ---------------------------------------------------------------------------


def test_views_come_in_groups_of_their_size_and_differ():
    large, small = global_and_local(random_images(8), jnp.arange(8), 0)
    assert large.shape == (8, 2, 16, 16, 3) and small.shape == (8, 3, 8, 8, 3)
    assert large.dtype == small.dtype == jnp.float32
    for group in (large, small):
        flat = np.asarray(group).reshape(-1, group[0, 0].size)
        assert len(np.unique(flat, axis=0)) == len(flat)


def test_crops_of_another_shape_are_refused():
    size, ids = GLOBAL.size, jnp.arange(3)
    crops = jnp.zeros((3, 2, size, size - 1, 3), jnp.uint8)
    message = rf"expects crops \[\(3, 2, {size}, {size}, 3\)\], got \[\(3, 2, {size}, {size - 1}, 3\)\]"
    with pytest.raises(ValueError, match=message):
        views.photometric_views((crops,), ids, seed=7, epoch=0, specs=((GLOBAL, 2),), mean=MEAN, std=STD)


def test_a_view_depends_on_seed_epoch_example_and_number_alone():
    images = random_images(8)
    first = global_and_local(images, jnp.arange(100, 108), 3)
    # The same examples in another order, next to other ones.
    other = random_images(8) // 2
    other[:3] = images[[5, 0, 2]]
    again = global_and_local(other, jnp.asarray([105, 100, 102, 1, 2, 3, 4, 5]), 3)
    for a, b in zip(first, again, strict=True):
        assert_array_equal(a[np.asarray([5, 0, 2])], b[:3])
    # A batch of one, and no local views.
    alone = one_global(images[4:5], jnp.asarray([104]), 7)
    assert_allclose(alone[0], first[0][4, :1], atol=1e-6)
    assert not np.allclose(global_and_local(images, jnp.arange(100, 108), 4)[0], first[0])
    assert not np.allclose(global_and_local(images, jnp.arange(101, 109), 3)[0], first[0])
    assert not np.allclose(one_global(images[4:5], jnp.asarray([104]), 8), alone)


@pytest.mark.slow
def test_eight_devices_give_the_views_of_one_without_talking():
    images, ids = random_images(8), jnp.arange(8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    over_batch = NamedSharding(mesh, PartitionSpec("data"))
    sharded = jax.device_put((images, ids), over_batch)
    compiled = global_and_local.lower(*sharded, 2).compile()
    text = compiled.as_text()
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))
    alone = global_and_local(images, ids, 2)
    for a, b in zip(global_and_local(*sharded, 2), alone, strict=True):
        assert a.sharding.is_equivalent_to(over_batch, a.ndim)
        assert_allclose(a, b, atol=1e-6)


def test_a_view_is_the_crop_then_the_photometric_operations_normalised():
    images, ids = random_images(8), jnp.arange(8)
    key = jax.random.fold_in(views.rng.stream(7, "views", 0), 1)
    key = jax.random.fold_in(key, 3)  # the second local view, behind two global ones
    seen = jax.jit(lambda key, image: views.view(key, image, LOCAL))(key, images[1])
    assert seen.min() >= 0 and seen.max() <= 1
    assert_allclose(global_and_local(images, ids, 0)[1][1, 1], augment.normalize(seen, MEAN, STD), atol=1e-5)

    crop_key, photometric_key = jax.random.split(key)
    box = views.sample_crop_box(crop_key, 20, 24, LOCAL.scale, LOCAL.ratio)
    crop = augment.resized_crop(images[1], box, LOCAL.size)
    assert_allclose(jax.jit(lambda key: views.photometric(key, crop, LOCAL))(photometric_key), seen, atol=1e-6)


def test_operations_of_probability_zero_are_not_in_the_program():
    def operations(spec):
        image = jnp.zeros((16, 16, 3))
        return str(jax.make_jaxpr(lambda key: views.photometric(key, image, spec))(jax.random.key(0)))

    assert "dot_general" in operations(GLOBAL) and "scan" in operations(GLOBAL)
    nothing = operations(NOTHING)
    assert not any(name in nothing for name in ("dot_general", "scan", "rev", "floor"))


def test_wrong_shapes_are_refused():
    arguments = dict(seed=0, epoch=0, specs=((GLOBAL, 2),), mean=MEAN, std=STD)
    with pytest.raises(ValueError, match=r"\(2, 20, 24, 3\) and \(3,\)"):
        views.make_views(random_images(2), jnp.arange(3), **arguments)
    with pytest.raises(ValueError, match=r"\(20, 24, 3\)"):
        views.make_views(random_images(1)[0], jnp.arange(1), **arguments)


# -- Distributions ----------------------------------------------------------------------------------------


def reference_boxes(n, height, width, scale, ratio):
    """torchvision's RandomResizedCrop.get_params, from its documentation: (top, left, height, width)."""
    rng = np.random.default_rng(11)
    boxes = []
    for _ in range(n):
        for _ in range(10):
            area = height * width * rng.uniform(*scale)
            aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                boxes.append((rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w))
                break
        else:
            if width / height < ratio[0]:
                w, h = width, round(width / ratio[0])
            elif width / height > ratio[1]:
                w, h = round(height * ratio[1]), height
            else:
                w, h = width, height
            boxes.append(((height - h) // 2, (width - w) // 2, h, w))
    return np.asarray(boxes)


def our_boxes(n, height, width, scale, ratio):
    keys = jax.random.split(jax.random.key(5), n)
    sample = jax.jit(jax.vmap(lambda key: jnp.stack(views.sample_crop_box(key, height, width, scale, ratio))))
    return np.asarray(sample(keys))


@pytest.mark.parametrize(
    "height, width, scale, ratio",
    [
        (32, 32, (0.3, 1.0), (3 / 4, 4 / 3)),
        (256, 340, (0.05, 0.4), (3 / 4, 4 / 3)),
        (60, 200, (0.6, 1.0), (3 / 4, 4 / 3)),  # only some tries fit, and some boxes are the fallback
        (47, 31, (0.2, 0.9), (0.5, 1.5)),
    ],
)
def test_crop_boxes_are_distributed_as_torchvisions(height, width, scale, ratio):
    n = 6000
    ours, theirs = (f(n, height, width, scale, ratio) for f in (our_boxes, reference_boxes))
    top, left, h, w = ours.T
    assert (top >= 0).all() and (left >= 0).all() and (h > 0).all() and (w > 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    statistics = {
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 3] / b[:, 2],
        "height": lambda b: b[:, 2],
        "width": lambda b: b[:, 3],
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
        "vertical centre": lambda b: b[:, 0] + b[:, 2] / 2,
    }
    for name, statistic in statistics.items():
        assert stats.ks_2samp(statistic(ours), statistic(theirs)).pvalue > 1e-3, name


@pytest.mark.parametrize(
    "height, width, box",
    [(20, 200, (0, 86, 20, 27)), (200, 20, (86, 0, 27, 20)), (30, 31, (0, 0, 30, 31))],
)
def test_the_last_resort_is_a_central_crop_of_an_allowed_aspect(height, width, box):
    # More than the whole area can never fit.
    boxes = our_boxes(20, height, width, (1.5, 2.0), (3 / 4, 4 / 3))
    assert_array_equal(boxes, np.broadcast_to(box, (20, 4)))


def assert_frequency(count, n, probability):
    assert stats.binomtest(int(count), n, probability).pvalue > 1e-3, (count, n, probability)


@pytest.mark.parametrize(
    "change, detect",
    [
        (dict(flip_prob=0.5), lambda before, after: (before[:, ::-1] == after).all()),
        (dict(jitter_prob=0.8), lambda before, after: (before != after).any()),
        (dict(grayscale_prob=0.2), lambda before, after: (after[..., 0] == after[..., 2]).all()),
        (dict(blur_prob=0.5, blur_sigma=(1.0, 2.0)), lambda before, after: (before != after).any()),
        (dict(solarize_prob=0.2), lambda before, after: (before != after).any()),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_each_operation_is_applied_with_its_probability(change, detect):
    n = 1500
    spec = dataclasses.replace(NOTHING, **change)
    image = jnp.asarray(random_images(1, (6, 7))[0] / np.float32(255))
    keys = jax.random.split(jax.random.key(3), n)
    after = np.asarray(jax.jit(jax.vmap(lambda key: views.photometric(key, image, spec)))(keys))
    before = np.rint(np.asarray(image) * 255)
    count = sum(detect(before, np.rint(x * 255)) for x in after)
    assert_frequency(count, n, next(iter(change.values())))


def test_operations_are_applied_independently():
    """A frozen coin shared by two operations would leave every frequency right."""
    n = 2000
    spec = dataclasses.replace(NOTHING, flip_prob=0.5, solarize_prob=0.5, grayscale_prob=0.5)
    image = np.zeros((4, 4, 3), np.float32)
    image[:, :2] = (1.0, 0.2, 0.0)  # bright on the left; no operation hides another
    keys = jax.random.split(jax.random.key(4), n)
    after = np.asarray(jax.jit(jax.vmap(lambda key: views.photometric(key, image, spec)))(keys))
    left, right = after[:, 0, 0], after[:, 0, 3]
    flipped = (left == 0).all(-1)
    block = np.where(flipped[:, None], right, left)
    gray = block[:, 0] == block[:, 1]
    solarized = np.where(gray, False, block[:, 0] == 0)  # full red inverts to none; grey is below the threshold
    table = np.histogramdd(np.stack([flipped, gray], -1).astype(int), bins=(2, 2))[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    table = np.histogramdd(np.stack([flipped[~gray], solarized[~gray]], -1).astype(int), bins=(2, 2))[0]
    assert table.sum() > 900 and stats.chi2_contingency(table).pvalue > 1e-3


def test_all_24_orders_of_the_jitter_are_equally_likely():
    n = 6000
    orders = np.asarray(jax.vmap(views.jitter_order)(jax.random.uniform(jax.random.key(6), (n, 4))))
    assert_array_equal(np.sort(orders, axis=1), np.broadcast_to(np.arange(4), (n, 4)))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3


def test_jitter_factors_are_uniform_in_their_ranges():
    spec = dataclasses.replace(GLOBAL, brightness=1.5, contrast=0.4, saturation=0.0, hue=0.1)
    u = jax.random.uniform(jax.random.key(8), (4000, 4))
    factors = np.asarray(jax.vmap(lambda u: views.jitter_factors(u, spec))(u))
    # Strength above 1 is cut off at factor 0; strength 0 leaves the image as it was.
    for column, (low, high) in zip(factors.T, [(0.0, 2.5), (0.6, 1.4), (1.0, 1.0), (-0.1, 0.1)], strict=True):
        assert low - 1e-6 <= column.min() and column.max() <= high + 1e-6
        if high > low:
            assert stats.kstest(column, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_blur_sigma_is_uniform_in_its_range():
    """Read off a single bright pixel: its share that stays gives the sigma of the kernel of three."""
    spec = dataclasses.replace(NOTHING, blur_prob=1.0, blur_sigma=(0.5, 2.0))
    point = np.zeros((9, 9, 3), np.float32)
    point[4] = 1.0  # a line: blurred along one axis only
    keys = jax.random.split(jax.random.key(9), 3000)
    centre = np.asarray(jax.jit(jax.vmap(lambda key: views.photometric(key, point, spec)[4, 4, 0]))(keys))
    sigma = np.sqrt(-0.5 / np.log((1 / centre - 1) / 2))  # centre = 1/(1 + 2·exp(−1/2σ²))
    # Rounding to 256 levels limits what can be read off large sigmas.
    assert 0.49 < sigma.min() < 0.52 and 1.95 < sigma.max() < 2.05
    assert_frequency((sigma < 1.25).sum(), 3000, 0.5)


# -- Evaluation images ------------------------------------------------------------------------------------


def test_evaluation_images_as_they_are():
    images = random_images(3, (8, 8))
    ours = views.eval_images(images, size=8, resize=None, mean=MEAN, std=STD)
    assert ours.dtype == jnp.float32
    assert_allclose(ours, (images / 255 - np.asarray(MEAN)) / np.asarray(STD), atol=1e-5)
    with pytest.raises(ValueError, match=r"16 x 16 images, got shape \(3, 8, 8, 3\)"):
        views.eval_images(images, size=16, resize=None, mean=MEAN, std=STD)


def test_evaluation_images_resized_and_cropped():
    images = random_images(2)
    ours = views.eval_images(images, size=14, resize=16, mean=MEAN, std=STD)
    for image, one in zip(images, ours, strict=True):
        expected = augment.normalize(augment.resize_and_center_crop(image, 16, 14), MEAN, STD)
        assert_allclose(one, expected, atol=1e-5)
