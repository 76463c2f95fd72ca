"""Small pictures made up on the spot, and folders of them."""

import io
import pathlib

import numpy as np
from PIL import Image


def picture(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """A smooth random image [h, w, 3] uint8: what JPEG keeps well."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encode(image: np.ndarray | Image.Image, kind: str = "JPEG", **options) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return buffer.getvalue()


def write(path: pathlib.Path, content: bytes) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def image_folder(
    root: pathlib.Path, *, train: int = 8, val: int = 3, classes=("cat", "dög", "eel")
) -> pathlib.Path:
    """train and val pictures of each class, of various sizes, as JPEGs."""
    seed = 0
    for part, count in (("train", train), ("val", val)):
        for name in classes:
            for k in range(count):
                image = picture(seed, 30 + 3 * (seed % 7), 48 - 4 * (seed % 5))
                write(root / part / name / f"{name}_{k}.JPEG", encode(image))
                seed += 1
    return root
