"""Augmentation operations against torchvision's figures (goldens) and against Pillow itself."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageEnhance, ImageOps

from hamjepa_jax.data import augment

SHAPES = [(120, 160), (32, 32), (19, 41)]
OPERATIONS = {  # parameters are traced, as they are in a training step
    "brightness": jax.jit(augment.adjust_brightness),
    "contrast": jax.jit(augment.adjust_contrast),
    "saturation": jax.jit(augment.adjust_saturation),
    "hue": jax.jit(augment.adjust_hue),
}
resized_crop = jax.jit(augment.resized_crop, static_argnums=2)
gaussian_blur = jax.jit(augment.gaussian_blur, static_argnums=2)


def random_image(shape, seed=0):
    """Blocks of colour under noise, with some pure grey: every branch of the HSV conversion occurs."""
    rng = np.random.default_rng(seed)
    h, w = shape
    blocks = rng.integers(0, 256, (h // 4 + 1, w // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)[:h, :w]
    image = np.clip(blocks + rng.normal(0, 8, (h, w, 3)), 0, 255).astype(np.uint8)
    image[:3] = image[:3, :, :1]
    return image


def assert_levels_close(ours, theirs, *, mean, largest):
    """ours in [0, 1] against uint8, in levels."""
    assert ours.dtype == np.float32 and ours.shape == theirs.shape
    levels = np.asarray(ours, np.float64) * 255
    assert_allclose(levels, np.rint(levels), atol=1e-4)  # whole levels, as an 8-bit image has
    error = np.abs(np.rint(levels) - theirs)
    assert error.mean() <= mean, error.mean()
    assert error.max() <= largest, error.max()


def golden_operation(key):
    """The function that should make this golden of an image, and the name of that image."""
    parts = key.split("/")
    if "resized_crop" in parts[0]:
        box, size = tuple(map(int, parts[1].split("_"))), int(parts[2])
        source = "small" if parts[0].startswith("small") else "image"
        return source, lambda x: resized_crop(x, box, size)
    if parts[0] == "eval":
        return "image", lambda x: augment.resize_and_center_crop(x, 256, 224)
    source, operation, *arguments = parts
    if operation == "blur":
        kernel_size, sigma = int(arguments[0][1:]), float(arguments[1][1:])
        return source, lambda x: gaussian_blur(x, sigma, kernel_size)
    if operation == "grayscale":
        return source, augment.grayscale
    if operation == "hflip":
        return source, augment.flip
    if operation == "solarize128":
        return source, lambda x: augment.solarize(x, 128 / 255)
    return source, lambda x: OPERATIONS[operation](x, float(arguments[0]))


@pytest.mark.parametrize("as_float", [True, False], ids=["float", "uint8"])
def test_every_golden_is_matched_to_rounding(goldens, as_float):
    golden = goldens("augmentation")
    keys = [k for k in golden if "/" in k]
    assert len(keys) == 53  # else a golden is not looked at
    for key in keys:
        source, operation = golden_operation(key)
        image = golden[source] / np.float32(255) if as_float else golden[source]
        exact = any(name in key for name in ("hue", "grayscale", "solarize", "hflip", "brightness"))
        ours = operation(jnp.asarray(image))
        try:
            assert_levels_close(ours, golden[key], mean=0 if exact else 0.05, largest=0 if exact else 1)
        except AssertionError as error:
            raise AssertionError(key) from error


@pytest.mark.parametrize("shape", SHAPES)
def test_resized_crop_matches_pillow_at_random_boxes(shape):
    rng, image = np.random.default_rng(1), random_image(shape)
    for size in (32, (96, 51)):
        height, width = (size, size) if isinstance(size, int) else size
        for _ in range(6):
            h, w = (int(rng.integers(1, n + 1)) for n in shape)
            top, left = (int(rng.integers(0, n - m + 1)) for n, m in zip(shape, (h, w), strict=True))
            pil = Image.fromarray(image).crop((left, top, left + w, top + h))
            theirs = np.asarray(pil.resize((width, height), Image.Resampling.BILINEAR))
            assert_levels_close(resized_crop(image, (top, left, h, w), size), theirs, mean=0.3, largest=1)


def test_resized_crop_of_the_whole_image_at_its_size_is_the_image():
    image = random_image((32, 32))
    assert_levels_close(augment.resized_crop(image, (0, 0, 32, 32), 32), image, mean=0, largest=0)


def test_resized_crop_sees_nothing_outside_its_box():
    image = np.full((40, 50, 3), 255, np.uint8)
    image[5:25, 8:38] = 90
    for size in (7, 64):  # shrinking has wide filters
        assert_allclose(resized_crop(image, (5, 8, 20, 30), size) * 255, 90, rtol=1e-6)


def test_blends_match_pillow_at_random_factors():
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    rng = np.random.default_rng(2)
    for name, enhancer in enhancers.items():
        for seed, factor in enumerate(rng.uniform(0, 2, 8)):
            image = random_image((32, 48), seed)
            theirs = np.asarray(enhancer(Image.fromarray(image)).enhance(factor))
            assert_levels_close(OPERATIONS[name](image, factor), theirs, mean=1e-3, largest=1)


def pillow_hue(image, factor):
    """The documented 8-bit hue shift: HSV by Pillow, hue plus whole 255ths modulo 256."""
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    shifted = (np.asarray(hue).astype(int) + int(factor * 255)) % 256
    hsv = (Image.fromarray(shifted.astype(np.uint8)), saturation, value)
    return np.asarray(Image.merge("HSV", hsv).convert("RGB"))


def test_hue_equals_pillow_on_a_lattice_of_all_colours():
    red, green, blue = np.arange(0, 256, 5), np.arange(0, 256, 3), np.arange(256)
    colours = np.stack(np.meshgrid(red, green, blue, indexing="ij"), -1).astype(np.uint8)
    colours = colours.reshape(-1, 256, 3)
    for factor in (-0.1, 0.0, 0.37):
        assert_levels_close(OPERATIONS["hue"](colours, factor), pillow_hue(colours, factor), mean=0, largest=0)


def test_solarize_and_grayscale_equal_pillow():
    image = random_image((32, 48))
    pil = Image.fromarray(image)
    for threshold in (0, 77, 128, 255):
        theirs = np.asarray(ImageOps.solarize(pil, threshold))
        assert_levels_close(augment.solarize(image, threshold / 255), theirs, mean=0, largest=0)
    grey = np.asarray(pil.convert("L"))[..., None].repeat(3, -1)
    assert_levels_close(augment.grayscale(image), grey, mean=0, largest=0)


@pytest.mark.parametrize("kernel_size, sigma", [(3, 0.4), (23, 1.7), (5, 10.0)])
def test_blur_is_the_reflected_convolution(kernel_size, sigma):
    image = random_image((30, 25)).astype(np.float64)
    half = kernel_size // 2
    weights = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    weights /= weights.sum()
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect")
    across = sum(weights[k] * padded[:, k : k + 25] for k in range(kernel_size))
    expected = sum(weights[k] * across[k : k + 30] for k in range(kernel_size))
    ours = gaussian_blur(image.astype(np.uint8), sigma, kernel_size)
    assert_levels_close(ours, expected, mean=0.3, largest=0.6)  # half a level is our rounding of the result


@pytest.mark.parametrize("shape, resize, size", [((40, 57), 36, 32), ((57, 40), 36, 36), ((30, 30), 64, 51)])
def test_evaluation_crop_matches_pillow(shape, resize, size):
    image = random_image(shape)
    height, width = (resize * n // min(shape) for n in shape)
    pil = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    top, left = round((height - size) / 2), round((width - size) / 2)
    theirs = np.asarray(pil.crop((left, top, left + size, top + size)))
    assert_levels_close(augment.resize_and_center_crop(image, resize, size), theirs, mean=0.3, largest=1)


@pytest.mark.parametrize("turn_hue", [True, False])
def test_colour_jitter_is_the_four_changes_in_the_given_order(turn_hue):
    image, factors = random_image((20, 24)), np.asarray([0.7, 1.3, 0.85, -0.08], np.float32)
    jitter = jax.jit(augment.color_jitter, static_argnames="turn_hue")
    operations = list(OPERATIONS.values())
    for order in itertools.permutations(range(4)):
        expected = image
        for change in order:
            if change != 3 or turn_hue:
                expected = operations[change](expected, factors[change])
        assert_array_equal(jitter(image, factors, jnp.asarray(order), turn_hue=turn_hue), expected, str(order))


def test_normalize_is_per_channel():
    for image in (np.full((2, 2, 3), 0.6, np.float32), np.full((2, 2, 3), 153, np.uint8)):
        ours = augment.normalize(image, (0.6, 0.35, 0.1), (1.0, 0.5, 0.25))
        assert_allclose(ours[1, 0], [0.0, 0.5, 2.0], atol=1e-6)


def test_wrong_shapes_are_refused_with_the_shape():
    batch = np.zeros((2, 8, 8, 3), np.uint8)
    for operation in (
        lambda x: augment.resized_crop(x, (0, 0, 4, 4), 4),
        lambda x: augment.adjust_hue(x, 0.1),
        lambda x: augment.gaussian_blur(x, 1.0, 3),
        augment.flip,
    ):
        with pytest.raises(ValueError, match=r"\(2, 8, 8, 3\)"):
            operation(batch)
    with pytest.raises(ValueError, match="odd"):
        augment.gaussian_blur(batch[0], 1.0, 4)
    with pytest.raises(ValueError, match="smaller"):
        augment.gaussian_blur(batch[0], 1.0, 17)
    with pytest.raises(ValueError, match="shorter side of 6"):
        augment.resize_and_center_crop(batch[0], 6, 8)
