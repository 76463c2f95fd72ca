"""Made-up images with a visible class structure, in any number and size: for load tests, not for results."""

import re

import numpy as np

from hamjepa_jax.data.split import ArraySplit, Source, SourceOptions, source_error
from hamjepa_jax.parts import sources

NUM_CLASSES = 10
DEFAULT_SIZE = 32


@sources.register(
    "synthetic", form="synthetic:N[xSIZE]", meaning="N made-up images of SIZE × SIZE pixels (32), for load tests"
)
def open_synthetic(rest: str, options: SourceOptions) -> Source:
    """Opens "synthetic:N" or "synthetic:NxSIZE": N training images, a tenth as many (at least 10) for testing.

    Image i is of class i mod 10: a coloured grating whose direction and colours belong to the class, under noise.

    Raises:
      UserError: if the argument is not of this form or N < 10.
    """
    del options  # Nothing is fetched.
    parts = re.fullmatch(r"(\d+)(?:x(\d+))?", rest)
    if not parts or int(parts[1]) < NUM_CLASSES or int(parts[2] or DEFAULT_SIZE) < 1:
        raise source_error(
            f"synthetic:{rest}",
            f"expected synthetic:N or synthetic:NxSIZE with N of at least {NUM_CLASSES}, as in synthetic:1024x224.",
        )
    n, size = int(parts[1]), int(parts[2] or DEFAULT_SIZE)
    return Source(name="synthetic", train=_split(n, size, 0), test=_split(max(NUM_CLASSES, n // 10), size, 1))


def _split(n: int, size: int, seed: int) -> ArraySplit:
    labels = (np.arange(n) % NUM_CLASSES).astype(np.int32)
    # Noise of 0 … 127 on patterns of 0 … 127: the sum stays within a byte, and both can be made as bytes.
    images = np.random.default_rng(seed).integers(0, 128, (n, size, size, 3), dtype=np.uint8)
    patterns = _patterns(size)
    for c in range(NUM_CLASSES):
        images[c::NUM_CLASSES] += patterns[c]
    return ArraySplit(images, labels, tuple(f"pattern {c}" for c in range(NUM_CLASSES)))


def _patterns(size: int) -> np.ndarray:
    """[classes, size, size, 3] uint8 gratings of three periods, values 0 … 127."""
    y, x = np.mgrid[:size, :size] / size
    patterns = []
    for c in range(NUM_CLASSES):
        angle = np.pi * c / NUM_CLASSES
        phase = 6 * np.pi * (x * np.cos(angle) + y * np.sin(angle))
        shades = 2 * np.pi * (c / NUM_CLASSES + np.arange(3) / 3)
        patterns.append(63.5 + 63.5 * np.sin(phase[..., None] + shades))
    return np.stack(patterns).astype(np.uint8)
