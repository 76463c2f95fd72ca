"""Times the input pipeline on one core: decoding and cropping the JPEGs of a folder."""

import io
import os
import pathlib
import random
import time
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from hamjepa_jax.data.images import decode
from hamjepa_jax.data.images.boxes import draw_box
from hamjepa_jax.errors import UserError

PUBLISHED = 76  # images/s on a core, of two views each: the published pipeline, all augmentation on the host
SCALE, RATIO = (0.4, 1.0), (3 / 4, 4 / 3)
MEAN, STD = np.asarray((0.485, 0.456, 0.406), np.float32), np.asarray((0.229, 0.224, 0.225), np.float32)
LIMIT = 500  # images held in memory, so that no disk is measured


def benchmark_input(jpeg_dir: str | os.PathLike, *, size: int = 224, views: int = 2, rounds: int = 8) -> str:
    """Times decoding and cropping as `stream_batches` does it, beside other pipelines, on images in memory.

    Everything runs in this thread. The fastest round of each image counts, so that other work on the machine
    disturbs less.

    Args:
      jpeg_dir: folder of JPEGs; the first 500 found at any depth are taken.
      size: side of the views.
      views: of each image.
      rounds: over all images, with the pipelines in turn.

    Raises:
      UserError: if there are no JPEGs.
    """
    files = sorted(
        p for p in pathlib.Path(os.path.expanduser(jpeg_dir)).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")
    )
    if not files:
        raise UserError(f"{jpeg_dir}: no .jpg or .jpeg files in this folder; name one with photographs.")
    images = [path.read_bytes() for path in files[:LIMIT]]
    shapes = np.asarray([decode.decode(data).shape[:2] for data in images])

    def boxes(i: int) -> Callable:
        def draw(height, width):
            shape = dict(height=height, width=width, scale=SCALE, ratio=RATIO)
            return [(draw_box(0, 0, i, view, **shape), size) for view in range(views)]

        return draw

    rates = _rates(
        {
            "ours": lambda i: decode.decode_crops(images[i], boxes(i)),
            "decode only": lambda i: decode.decode_for_crops(images[i], boxes(i)),
            "Pillow": lambda i: _pillow_views(images[i], size, views),
        },
        len(images),
        rounds,
    )
    height, width = np.median(shapes, axis=0).astype(int)
    how = "simplejpeg + cykooz_resizer" if decode.is_fast() else "Pillow (simplejpeg, cykooz_resizer not installed)"
    rows = {
        f"decode and {views} crops at {size}, the rest on the device": rates["ours"],
        "the same decoder, no crops: the ceiling": rates["decode only"],
        f"Pillow: decode, {views} views augmented on the host": rates["Pillow"],
        f"the published pipeline, {views} views": PUBLISHED,
    }
    lines = [f"{len(images)} JPEGs, median {width} × {height}, with {how}; images/s on one core", ""]
    for number, (name, rate) in enumerate(rows.items()):
        faster = f"{rates['ours'] / rate:.1f} ×" if number > 1 else ""
        lines.append(f"{name:<60}{rate:>8.0f}{faster:>10}")
    return "\n".join(lines)


def _rates(calls: dict[str, Callable[[int], object]], n: int, rounds: int) -> dict[str, float]:
    """Calls a second, from each image's fastest."""
    seconds = {name: np.full(n, np.inf) for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for i in range(n):
                start = time.perf_counter()
                call(i)
                seconds[name][i] = min(seconds[name][i], time.perf_counter() - start)
    return {name: 1 / fastest.mean() for name, fastest in seconds.items()}


# -- The pipeline to compare with: the paper's views made by Pillow alone, as torchvision makes them -----------


def _pillow_views(data: bytes, size: int, views: int) -> list[np.ndarray]:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return [_pillow_view(image, size) for _ in range(views)]


def _pillow_view(image: Image.Image, size: int) -> np.ndarray:
    """One view as a normalised float array of planes."""
    top, left, height, width = draw_box(
        0, 0, random.getrandbits(30), 0, height=image.height, width=image.width, scale=SCALE, ratio=RATIO
    )
    image = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < 0.8:
        image = _pillow_jitter(image, (0.4, 0.4, 0.2), 0.1)
    if random.random() < 0.2:
        image = ImageOps.grayscale(image).convert("RGB")
    if random.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))
    if random.random() < 0.2:
        image = ImageOps.solarize(image, 128)
    planes = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
    return (planes - MEAN[:, None, None]) / STD[:, None, None]


def _pillow_jitter(image: Image.Image, strengths: Sequence[float], hue: float) -> Image.Image:
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    changes = [
        lambda image, e=e, s=s: e(image).enhance(random.uniform(1 - s, 1 + s))
        for e, s in zip(enhancers, strengths, strict=True)
    ]
    changes.append(lambda image: _pillow_hue(image, random.uniform(-hue, hue)))
    random.shuffle(changes)
    for change in changes:
        image = change(image)
    return image


def _pillow_hue(image: Image.Image, turn: float) -> Image.Image:
    h, s, v = image.convert("HSV").split()
    h = Image.fromarray((np.asarray(h).astype(np.int16) + round(turn * 255)).astype(np.uint8))
    return Image.merge("HSV", (h, s, v)).convert("RGB")
