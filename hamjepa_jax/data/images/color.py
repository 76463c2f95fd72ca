"""Colour operations as torchvision does them on 8-bit PIL images; public through `augment`, whose rules hold here.

Inside, an image is [3, h, w] levels: whole numbers 0 … 255 as float32, on which the arithmetic below is exact.
"""

import jax
import jax.numpy as jnp

Array = jax.Array
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def check_image(image, function: str) -> None:
    """Raises ValueError unless `image` is [h, w, 3]."""
    if image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"{function} expects one [h, w, 3] image (vmap over batches), got shape {image.shape}.")


def levels(image: Array) -> Array:
    """Whole numbers 0 … 255 as float32, from uint8 or from the nearest levels of a float image in [0, 1]."""
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32)
    return jnp.round(jnp.clip(image.astype(jnp.float32), 0.0, 1.0) * 255.0)


def unit_range(image: Array) -> Array:
    """Float32 in [0, 1], from uint8 or as it is."""
    return image.astype(jnp.float32) / (255.0 if image.dtype == jnp.uint8 else 1.0)


def _to_planes(image: Array, function: str) -> Array:
    check_image(image, function)
    return jnp.moveaxis(levels(image), -1, 0)


def _from_planes(planes: Array) -> Array:
    return jnp.moveaxis(planes, 0, -1) / 255.0


# -- Blends -----------------------------------------------------------------------------------------------


def adjust_brightness(image: Array, factor) -> Array:
    """Blends [h, w, 3] with black: factor 0 is black, 1 leaves the image, 2 doubles it (may be traced)."""
    planes = _to_planes(image, "adjust_brightness")
    return _from_planes(_blend(jnp.zeros_like(planes[0]), planes, factor))


def adjust_contrast(image: Array, factor) -> Array:
    """Blends [h, w, 3] with the rounded mean of its grey image: factor 0 is plain grey, 1 leaves the image."""
    planes = _to_planes(image, "adjust_contrast")
    return _from_planes(_blend(jnp.full_like(planes[0], _rounded_mean(_grey(planes))), planes, factor))


def adjust_saturation(image: Array, factor) -> Array:
    """Blends [h, w, 3] with its grey image: factor 0 is grey, 1 leaves the image (may be traced)."""
    planes = _to_planes(image, "adjust_saturation")
    return _from_planes(_blend(_grey(planes), planes, factor))


def grayscale(image: Array) -> Array:
    """ITU-R 601 grey of [h, w, 3], repeated over the three channels."""
    planes = _to_planes(image, "grayscale")
    return _from_planes(jnp.broadcast_to(_grey(planes)[None], planes.shape))


def _grey(planes: Array) -> Array:
    """ITU-R 601 luma [h, w] in Pillow's 16-bit fixed point; every term is below 2^24, so float32 is exact."""
    red, green, blue = planes
    return jnp.floor((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536)


def _rounded_mean(grey: Array) -> Array:
    return jnp.floor(grey.mean() + 0.5)


def _blend(target: Array, planes: Array, factor) -> Array:
    """target + factor·(planes − target), cut to 0 … 255 and rounded down, as Pillow's enhancers do."""
    mixed = target[None] + factor * (planes - target[None])
    # Whole results are common (0.6·5); one rounding error of slack, so that a fused multiply-add cannot lose them.
    return jnp.floor(jnp.clip(mixed + 2e-5, 0, 255))


# -- Hue ----------------------------------------------------------------------------------------------------


def adjust_hue(image: Array, factor) -> Array:
    """Turns the hue of [h, w, 3] by `factor` of a full circle, through Pillow's 8-bit HSV.

    Args:
      image: [h, w, 3], uint8 or float in [0, 1].
      factor: in [-0.5, 0.5]; the shift is cut to whole 255ths of a circle. May be traced. 0 is not the identity:
        8-bit HSV is coarser than RGB.

    Returns:
      [h, w, 3] float32 in [0, 1].

    Raises:
      ValueError: if the image is not [h, w, 3].
    """
    return _from_planes(_turn_hue(_to_planes(image, "adjust_hue"), factor))


def _turn_hue(planes: Array, factor) -> Array:
    hue, saturation, value = _rgb_to_hsv(planes)
    hue = hue + jnp.mod(jnp.trunc(factor * 255.0), 256)
    hue = jnp.where(hue >= 256, hue - 256, hue)  # an 8-bit sum: 256 wraps to 0
    return _hsv_to_rgb(hue, saturation, value)


def _rgb_to_hsv(planes: Array) -> tuple[Array, Array, Array]:
    """Hue, saturation and value, each [h, w] in whole numbers 0 … 255 (hue: 255ths of a circle, rounded down)."""
    red, green, blue = planes
    value = jnp.maximum(jnp.maximum(red, green), blue)
    lowest = jnp.minimum(jnp.minimum(red, green), blue)
    chroma = value - lowest
    middle = red + green + blue - value - lowest
    # The position on the circle of six sectors is an even number plus (x − y), where x and y are the distances to
    # `value` of the two lesser channels in units of chroma. One of them is exactly 1; using that leaves a single
    # rounding, which then decides as Pillow's does where the hue is a whole number of 255ths.
    sector = jnp.where(red == value, 0.0, jnp.where(green == value, 2.0, 4.0))
    x = jnp.where(red == value, blue, jnp.where(green == value, red, green))
    distance = (value - middle) / jnp.maximum(chroma, 1)
    sixths = jnp.where(x == lowest, (sector + 1) - distance, (sector - 1) + distance)
    turn = _sixth(sixths)
    turn = jnp.where(sixths < 0, 1 + turn, turn)
    hue = jnp.where(chroma == 0, 0.0, _floor_of_255_times(turn))
    # Half a unit in the numerator keeps exact quotients from falling below, whatever the device's division.
    saturation = jnp.floor((255 * chroma + 0.5) / jnp.maximum(value, 1))
    return hue, saturation, value


def _sixth(x: Array) -> Array:
    """x/6 correctly rounded: XLA may multiply by the reciprocal, so the (exact) remainder is put back."""
    quotient = x / 6
    return quotient + ((x - 4 * quotient) - 2 * quotient) / 6


def _floor_of_255_times(x: Array) -> Array:
    """⌊255·x⌋ of the unrounded product, x in [0, 1]: the two halves of x times 255 are exact in float32."""
    nearest = jnp.round(255 * x)
    high = jnp.floor(x * 4096) / 4096
    return jnp.where((255 * high - nearest) + 255 * (x - high) < 0, nearest - 1, nearest)


def _hsv_to_rgb(hue: Array, saturation: Array, value: Array) -> Array:
    """Planes [3, h, w] = value·(1 − saturation·w(hue)), rounded; w is a trapezoid, shifted for each channel."""
    channels = []
    for offset in (5, 3, 1):  # sixths of the circle, for red, green and blue
        position = 6 * hue + 255 * offset  # in 255ths of a sector
        position = jnp.where(position >= 6 * 255, position - 6 * 255, position)
        weight = jnp.clip(jnp.minimum(position, 4 * 255 - position), 0, 255)
        channels.append(jnp.round(value * (1 - saturation * weight / 65025)))
    return jnp.stack(channels)


# -- Colour jitter and solarising -------------------------------------------------------------------------


def color_jitter(image: Array, factors: Array, order: Array, *, turn_hue: bool = True) -> Array:
    """Brightness, contrast, saturation and hue of [h, w, 3], one after the other.

    The same numbers as the four functions above called in that order, but cheaper under vmap, where a switch would
    evaluate all its branches for every image: three of the changes are one blend with different targets, and the
    costly fourth occurs once. So blend up to three times, turn the hue, blend up to three times again, and let a
    blend whose turn is on the other side be the identity.

    Args:
      image: [h, w, 3], uint8 or float in [0, 1].
      factors: [4], of BRIGHTNESS, CONTRAST, SATURATION, HUE (the positions 0 … 3).
      order: [4], a permutation of these positions, the first to be applied first; may be traced.
      turn_hue: False leaves the hue out of the program.

    Returns:
      [h, w, 3] float32 in [0, 1].

    Raises:
      ValueError: if the image is not [h, w, 3].
    """
    planes = _to_planes(image, "color_jitter")
    slots = jnp.arange(4)

    def blend(planes, slot):
        change, active = slot
        grey = _grey(planes)
        target = jnp.where(change == BRIGHTNESS, 0, jnp.where(change == CONTRAST, _rounded_mean(grey), grey))
        factor = jnp.where(active & (change != HUE), jnp.where(slots == change, factors, 0).sum(), 1)
        return _blend(target, planes, factor), None

    # Loops, because XLA on CPU fuses the unrolled chain so far that it computes the hue several times.
    if not turn_hue:
        planes, _ = jax.lax.scan(blend, planes, (order, slots >= 0))
        return _from_planes(planes)
    hue_slot = jnp.argmax(order == HUE)
    planes, _ = jax.lax.scan(blend, planes, (order[:3], slots[:3] < hue_slot))
    planes = _turn_hue(planes, factors[HUE])
    planes, _ = jax.lax.scan(blend, planes, (order[1:], slots[1:] > hue_slot))
    return _from_planes(planes)


def solarize(image: Array, threshold) -> Array:
    """Inverts the values of [h, w, 3] at or above `threshold`, given in [0, 1] (torchvision's 128 is 128/255)."""
    check_image(image, "solarize")
    whole = levels(image)
    # 128/255·255 may come out above 128; levels are whole, so a little slack cannot take in the next one.
    return jnp.where(whole >= threshold * 255.0 - 1e-3, 255 - whole, whole) / 255.0
