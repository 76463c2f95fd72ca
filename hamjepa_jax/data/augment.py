"""Image operations as torchvision does them on 8-bit PIL images, as plain functions that trace, vmap and shard.

An image is [h, w, 3], either uint8 or float in [0, 1]; results are float32 in [0, 1]. Pillow rounds to 256 levels
after every operation (and its HSV conversion is integer), so these functions do as well: a float image is read as
the nearest of 256 levels and a result is always k/255, but where rounding is switched off. Parameters (boxes,
factors, sigmas) may be traced; sizes and kernel sizes are static. Colour is in images/color.py; geometry and
filters are here.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hamjepa_jax.data.images.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    check_image,
    color_jitter,
    grayscale,
    levels,
    solarize,
    unit_range,
)

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "color_jitter",
    "flip",
    "gaussian_blur",
    "grayscale",
    "normalize",
    "resize_and_center_crop",
    "resized_crop",
    "solarize",
    "unit_range",
]

Array = jax.Array


# -- Geometry ---------------------------------------------------------------------------------------------


def resized_crop(image: Array, box, size) -> Array:
    """Crops a box and resizes it, bilinear with antialiasing (Pillow's BILINEAR on the cropped image).

    Args:
      image: [h, w, 3], uint8 or float in [0, 1].
      box: (top, left, height, width) in pixels, inside the image and not empty; may be traced.
      size: output side, or (height, width); static.

    Returns:
      [size, size, 3] float32 in [0, 1].

    Raises:
      ValueError: if the image is not [h, w, 3].
    """
    check_image(image, "resized_crop")
    out_height, out_width = (size, size) if isinstance(size, int) else size
    top, left, height, width = (jnp.asarray(x, jnp.float32) for x in box)
    rows = _resize_weights(out_height, image.shape[0], top, height, height / out_height)
    columns = _resize_weights(out_width, image.shape[1], left, width, width / out_width)
    return _resample(image, rows, columns, step=1)


def resize_and_center_crop(image: Array, resize: int, size: int, *, rounded: bool = True) -> Array:
    """Resizes the shorter side to `resize` (antialiased bilinear) and cuts the central size × size square.

    Args:
      image: [h, w, 3], uint8 or float in [0, 1].
      resize: the shorter side after resizing, in pixels; the longer side keeps the aspect, rounded down.
      size: side of the square, at most `resize`.
      rounded: False rounds to no levels, so that the result is linear in a float image, and has its gradient.

    Returns:
      [size, size, 3] float32 in [0, 1].

    Raises:
      ValueError: if the image is not [h, w, 3] or the square is larger than the resized image.
    """
    check_image(image, "resize_and_center_crop")
    if size > resize:
        raise ValueError(f"resize_and_center_crop cannot cut {size} pixels out of a shorter side of {resize}.")
    shorter = min(image.shape[:2])
    weights = []
    for extent in image.shape[:2]:
        resized = resize * extent // shorter
        first = round((resized - size) / 2)  # Python's rounding (half to even), as torchvision has it
        weights.append(_resize_weights(size, extent, 0, extent, extent / resized, first))
    if rounded:
        return _resample(image, *weights, step=1)
    precision = jax.lax.Precision.HIGHEST
    return jnp.einsum("yh,hwc,xw->yxc", weights[0], unit_range(image), weights[1], precision=precision)


def flip(image: Array, flipped=True) -> Array:
    """Mirrors [h, w, 3] left to right where `flipped` (a boolean, may be traced)."""
    check_image(image, "flip")
    image = unit_range(image)
    return jnp.where(flipped, image[:, ::-1], image)


def _resize_weights(size: int, extent: int, start, length, scale, first: int = 0) -> Array:
    """Weights [size, extent] that reduce pixels start … start+length of a line by `scale`, output `first` onwards.

    The triangle filter, widened by the scale where that is above 1 (antialiasing), cut off at the ends of the
    interval and renormalised: Pillow's bilinear resize of the cropped line.
    """
    centre = (jnp.arange(size, dtype=jnp.float32) + (first + 0.5)) * scale
    pixel = jnp.arange(extent, dtype=jnp.float32) + 0.5 - start  # pixel centres, counted from the crop's edge
    inside = (pixel >= 0) & (pixel < length)
    distance = jnp.abs(pixel[None, :] - centre[:, None]) / jnp.maximum(scale, 1.0)
    weights = jnp.where(inside[None, :], jnp.maximum(1.0 - distance, 0.0), 0.0)
    return _to_multiples(weights / weights.sum(axis=1, keepdims=True), 1 / 65536)


def _resample(image: Array, rows: Array, columns: Array, *, step: float) -> Array:
    """Applies [w', w] and then [h', h] weights to [h, w, 3]; rounds to multiples of `step` levels, then to levels.

    Two matrix products, fast on every device. Channels go to the middle, where neither product needs a transpose.
    With weights that are multiples of 1/65536, and of 1/(65536·step) in the second product, all sums fit into
    float32's 24 bits. So they are exact, and the rounding cannot depend on batch, device or the order of summation.
    """
    precision = jax.lax.Precision.HIGHEST
    image = jnp.swapaxes(levels(image), 1, 2)
    image = _to_multiples(jnp.einsum("hcw,xw->hcx", image, columns, precision=precision), step)
    image = _to_multiples(jnp.einsum("yh,hcx->ycx", rows, image, precision=precision), 1)
    return jnp.swapaxes(image, 1, 2) / 255.0


def _to_multiples(x: Array, step: float) -> Array:
    return jnp.floor(x * (1 / step) + 0.5) * step


# -- Filters and normalisation ----------------------------------------------------------------------------


def gaussian_blur(image: Array, sigma, kernel_size: int) -> Array:
    """Gaussian blur with a kernel cut to `kernel_size` samples and mirrored borders (the edge is not repeated).

    Args:
      image: [h, w, 3], uint8 or float in [0, 1].
      sigma: standard deviation in pixels, positive; may be traced.
      kernel_size: odd number of samples along each axis; static.

    Returns:
      [h, w, 3] float32 in [0, 1].

    Raises:
      ValueError: if the image is not [h, w, 3], the kernel size is even or its half is not smaller than the image.
    """
    check_image(image, "gaussian_blur")
    half = kernel_size // 2
    if kernel_size != 2 * half + 1 or half >= min(image.shape[:2]):
        raise ValueError(
            f"gaussian_blur needs an odd kernel whose half is smaller than the image, got {kernel_size} for an "
            f"image of shape {image.shape}."
        )
    rows = _blur_weights(image.shape[0], sigma, half, 1 / 4096)
    columns = _blur_weights(image.shape[1], sigma, half, 1 / 65536)
    return _resample(image, rows, columns, step=1 / 16)


def _blur_weights(extent: int, sigma, half: int, step: float) -> Array:
    """[extent, extent] matrix of the blur along a line; pixels outside are folded back in by reflection.

    Multiples of `step` whose rows sum to 1 exactly, so that plain areas stay as they are.
    """
    i = np.arange(extent)
    target, source = i[:, None], i[None, :]
    last = extent - 1
    # Each pixel, its mirror image in the first pixel and in the last; those two are their own images, counted once.
    images = ((source, source >= 0), (-source, source > 0), (2 * last - source, source < last))
    weights = jnp.zeros((extent, extent))
    for position, counts in images:
        offset = position - target
        within = (np.abs(offset) <= half) & counts
        weights = weights + jnp.where(within, jnp.exp(-0.5 * jnp.square(offset / sigma)), 0.0)
    weights = _to_multiples(weights / weights.sum(axis=1, keepdims=True), step)
    return weights + np.eye(extent, dtype=np.float32) * (1 - weights.sum(axis=1, keepdims=True))


def normalize(image: Array, mean, std) -> Array:
    """(image − mean)/std of [h, w, 3] per channel; `mean` and `std` are three numbers each, for [0, 1] images."""
    check_image(image, "normalize")
    mean, std = (jnp.asarray(x, jnp.float32).reshape(1, 1, 3) for x in (mean, std))
    return (unit_range(image) - mean) / std
