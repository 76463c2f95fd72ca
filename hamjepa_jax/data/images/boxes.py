"""Boxes of random resized crops, drawn where images are decoded: torchvision's distribution in NumPy."""

import math
import zlib

import numpy as np

TRIES = 10  # Then the sampler takes a centre crop.
STREAM = zlib.crc32(b"host crops")


def draw_box(
    seed: int,
    epoch: int,
    example: int,
    view: int,
    *,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
    """The box of one view of one example in one epoch: a function of these and nothing else.

    The distribution is that of `views.sample_crop_box`. The numbers are others, as they come from NumPy's Philox
    generator: a process that only decodes needs no JAX.

    Args:
      seed: the run's seed.
      epoch: counted from 0.
      example: position in the split.
      view: numbered through over all sizes of views.
      height: of the image in pixels; likewise width.
      scale: (low, high) fraction of the area.
      ratio: (low, high) width/height, drawn log-uniformly.

    Returns:
      (top, left, height, width) in whole pixels.
    """
    # The counter's lowest word stays free: the generator counts in it.
    draws = np.random.Generator(
        np.random.Philox(key=[seed % 2**64, STREAM], counter=[0, view, example, epoch])
    ).random(2 * TRIES + 2)
    areas, aspects, (vertical, horizontal) = draws[:TRIES], draws[TRIES : 2 * TRIES], draws[2 * TRIES :]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for area, aspect in zip(areas.tolist(), aspects.tolist(), strict=True):
        area = height * width * (scale[0] + area * (scale[1] - scale[0]))
        aspect = math.exp(low + aspect * (high - low))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(vertical * (height - h + 1)), int(horizontal * (width - w + 1)), h, w
    return center_box(height, width, ratio)


def center_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The sampler's last resort: the whole image, cut down centrally to the nearest allowed aspect."""
    h, w = height, width
    if width / height < min(ratio):
        h = max(1, round(width / min(ratio)))
    elif width / height > max(ratio):
        w = max(1, round(height * max(ratio)))
    return (height - h) // 2, (width - w) // 2, h, w
