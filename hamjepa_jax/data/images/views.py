"""Random views of images (SimCLR/BYOL-style, torchvision's distributions), computed inside the jitted step.

The random numbers of a view depend on (seed, epoch, example, view number) and on nothing else: not on the batch of
the example, and not on the number of devices or hosts.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from hamjepa_jax import rng
from hamjepa_jax.data import augment
from hamjepa_jax.data.images import color
from hamjepa_jax.data.images.boxes import TRIES, center_box

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class ViewSpec:
    """How one kind of view is made; operations with probability (or strength) 0 are left out of the program.

    Attributes:
      size: side of the view in pixels.
      scale: range of the crop's area as a fraction of the image's.
      ratio: range of the crop's aspect (width/height), log-uniform.
      flip_prob: probability of mirroring left to right.
      jitter_prob: probability of changing the colours, in this view's random order of the four changes.
      brightness: b, for factors uniform in [max(0, 1−b), 1+b].
      contrast: the same for contrast.
      saturation: the same for saturation.
      hue: largest turn of the hue in either direction, as a fraction of the circle (at most 0.5).
      grayscale_prob: probability of losing colour.
      blur_prob: probability of a Gaussian blur.
      blur_sigma: range of its standard deviation in pixels.
      blur_kernel: its odd number of samples along an axis.
      solarize_prob: probability of inverting the values at or above the threshold.
      solarize_threshold: in [0, 1]; 128/255 is torchvision's 128.
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip_prob: float
    jitter_prob: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grayscale_prob: float
    blur_prob: float
    blur_sigma: tuple[float, float]
    blur_kernel: int
    solarize_prob: float
    solarize_threshold: float


def sample_crop_box(key: Array, height: int, width: int, scale, ratio) -> tuple[Array, Array, Array, Array]:
    """Draws the box of a random resized crop with torchvision's distribution.

    Ten tries: area uniform in scale·height·width, aspect log-uniform in ratio, sides rounded; the first that fits
    is placed uniformly. If none fits: the largest centre crop whose aspect is within ratio.

    Args:
      key: PRNG key.
      height: of the image in pixels, static; likewise width.
      scale: (low, high) fraction of the area.
      ratio: (low, high) width/height.

    Returns:
      (top, left, height, width), whole pixels as int32 scalars.
    """
    u = jax.random.uniform(key, (2 * TRIES + 2,))  # one draw: hashing is much of the compile time
    area = height * width * _between(u[:TRIES], *scale)
    aspect = jnp.exp(_between(u[TRIES : 2 * TRIES], *(math.log(r) for r in ratio)))
    w = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    h = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits & (jnp.cumsum(fits) == 1)  # one-hot, or all false
    h, w = jnp.where(first, h, 0).sum(), jnp.where(first, w, 0).sum()
    room = jnp.stack([height - h, width - w])
    top, left = jnp.minimum(jnp.floor(u[2 * TRIES :] * (room + 1)).astype(jnp.int32), room)
    found = fits.any()
    drawn = (top, left, h, w)
    return tuple(jnp.where(found, a, b) for a, b in zip(drawn, center_box(height, width, ratio), strict=True))


def _between(u: Array, low, high) -> Array:
    """Numbers uniform in [0, 1) to numbers uniform in [low, high)."""
    return low + u * (high - low)


def photometric(key: Array, image: Array, spec: ViewSpec) -> Array:
    """Flip, colour jitter, grayscale, blur and solarise, each with its probability, in this order.

    Args:
      key: PRNG key of this view.
      image: [h, w, 3] crop, uint8 or float in [0, 1].
      spec: probabilities and strengths.

    Returns:
      [h, w, 3] float32 in [0, 1].
    """
    u = jax.random.uniform(key, (14,))  # one draw, as in sample_crop_box
    flip, jitter, gray, blur, solar, sigma = u[:6]
    image = augment.unit_range(image)
    if spec.flip_prob > 0:
        image = augment.flip(image, flip < spec.flip_prob)
    if spec.jitter_prob > 0 and max(spec.brightness, spec.contrast, spec.saturation, spec.hue) > 0:
        order, factors = jitter_order(u[6:10]), jitter_factors(u[10:], spec)
        jittered = augment.color_jitter(image, factors, order, turn_hue=spec.hue > 0)
        image = jnp.where(jitter < spec.jitter_prob, jittered, image)
    if spec.grayscale_prob > 0:
        image = jnp.where(gray < spec.grayscale_prob, augment.grayscale(image), image)
    if spec.blur_prob > 0:
        blurred = augment.gaussian_blur(image, _between(sigma, *spec.blur_sigma), spec.blur_kernel)
        image = jnp.where(blur < spec.blur_prob, blurred, image)
    if spec.solarize_prob > 0:
        inverted = augment.solarize(image, spec.solarize_threshold)
        image = jnp.where(solar < spec.solarize_prob, inverted, image)
    return image


def jitter_order(u: Array) -> Array:
    """Order [4] of the four changes, numbered as in `color`; uniform among the 24 for u [4] uniform in [0, 1)."""
    return jnp.argsort(u)


def jitter_factors(u: Array, spec: ViewSpec) -> Array:
    """Factors [4] of the four changes, uniform in their ranges for u [4] uniform in [0, 1).

    A change of strength 0 has the factor that means "as it was".
    """
    strengths = jnp.asarray([spec.brightness, spec.contrast, spec.saturation, spec.hue])
    neutral = jnp.asarray([1.0, 1.0, 1.0, 0.0])
    low = (neutral - strengths).at[: color.HUE].max(0.0)
    return _between(u, low, neutral + strengths)


def view(key: Array, image: Array, spec: ViewSpec) -> Array:
    """One random view [size, size, 3], float32 in [0, 1], of an image [h, w, 3]: crop, then photometric."""
    crop_key, photometric_key = jax.random.split(key)
    box = sample_crop_box(crop_key, image.shape[0], image.shape[1], spec.scale, spec.ratio)
    return photometric(photometric_key, augment.resized_crop(image, box, spec.size), spec)


def make_views(
    images: Array,
    example_ids: Array,
    *,
    seed: int | Array,
    epoch: int | Array,
    specs: tuple[tuple[ViewSpec, int], ...],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> tuple[Array, ...]:
    """Random views of a batch, normalised.

    Args:
      images: [b, h, w, 3] uint8.
      example_ids: [b] positions of the examples in their split; may be traced.
      seed: the run's seed; may be traced.
      epoch: counted from 0; may be traced.
      specs: pairs (spec, how many views of it), as in ((global, 2), (local, 6)). Views are numbered through, so
        adding local views leaves the global ones as they were.
      mean: per channel, of images in [0, 1].
      std: per channel.

    Returns:
      For each pair an array [b, v, size, size, 3], float32.

    Raises:
      ValueError: if the images are not [b, h, w, 3] or there is not one id for each.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or example_ids.shape != images.shape[:1]:
        raise ValueError(
            f"make_views expects images [b, h, w, 3] and ids [b], got {images.shape} and {example_ids.shape}."
        )

    def views_of_one(keys, image, spec):
        return jax.vmap(lambda key: augment.normalize(view(key, image, spec), mean, std))(keys)

    epoch_key = rng.stream(seed, "views", epoch)
    return tuple(
        jax.vmap(lambda i, image: views_of_one(view_keys(epoch_key, i, numbers), image, spec))(example_ids, images)
        for spec, numbers in numbered(specs)
    )


def photometric_views(
    crops: tuple[Array, ...],
    example_ids: Array,
    *,
    seed: int | Array,
    epoch: int | Array,
    specs: tuple[tuple[ViewSpec, int], ...],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> tuple[Array, ...]:
    """The rest of `make_views` after the host has decoded and cropped: flip to solarise, then normalisation.

    Operations and random numbers are the same; only the crops' boxes are drawn elsewhere (`boxes`).

    Args:
      crops: for each pair of `specs` an array [b, v, size, size, 3] uint8.
      example_ids: [b] positions of the examples in their split; may be traced.
      seed, epoch, specs, mean, std: see `make_views`.

    Returns:
      For each pair an array [b, v, size, size, 3], float32.

    Raises:
      ValueError: if the crops are not of these shapes.
    """
    expected = [(*example_ids.shape, count, spec.size, spec.size, 3) for spec, count in specs]
    if [x.shape for x in crops] != expected:
        raise ValueError(f"photometric_views expects crops {expected}, got {[x.shape for x in crops]}.")

    def views_of_one(keys, crops, spec):
        def one(key, crop):
            _, photometric_key = jax.random.split(key)  # the other one is for the box, see `view`
            return augment.normalize(photometric(photometric_key, crop, spec), mean, std)

        return jax.vmap(one)(keys, crops)

    epoch_key = rng.stream(seed, "views", epoch)
    return tuple(
        jax.vmap(lambda i, x: views_of_one(view_keys(epoch_key, i, numbers), x, spec))(example_ids, x)
        for x, (spec, numbers) in zip(crops, numbered(specs), strict=True)
    )


def numbered(specs: tuple[tuple[ViewSpec, int], ...]) -> list[tuple[ViewSpec, Array]]:
    """(spec, numbers of its views): views are numbered through over all specs."""
    numbered, first = [], 0
    for spec, count in specs:
        numbered.append((spec, first + jnp.arange(count)))
        first += count
    return numbered


def view_keys(epoch_key: Array, example_id: Array, numbers: Array) -> Array:
    """The key of each of an example's views [v], by its number."""
    example_key = jax.random.fold_in(epoch_key, example_id)
    return jax.vmap(lambda number: jax.random.fold_in(example_key, number))(numbers)


def eval_images(images: Array, *, size: int, resize: int | None, mean, std) -> Array:
    """Images as they are evaluated: no randomness.

    Args:
      images: [b, h, w, 3] uint8, or float in [0, 1]. Bytes are resized as Pillow does it, with whole levels as the
        result; floats are not rounded, so gradients with respect to them are real.
      size: side of the result in pixels.
      resize: shorter side before the central square is cut out; None takes the images as they are.
      mean: per channel, of images in [0, 1].
      std: per channel.

    Returns:
      [b, size, size, 3] float32, normalised.

    Raises:
      ValueError: if the images are not [b, h, w, 3], or resize is None and they are not size × size.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"eval_images expects [b, h, w, 3], got shape {images.shape}.")
    if resize is None and images.shape[1:3] != (size, size):
        raise ValueError(f"eval_images without resize expects {size} x {size} images, got shape {images.shape}.")

    def one(image):
        if resize is not None:
            image = augment.resize_and_center_crop(image, resize, size, rounded=image.dtype == jnp.uint8)
        return augment.normalize(image, mean, std)

    return jax.vmap(one)(images)
