"""Scikit-learn's handwritten digits: 1,797 images of 8 x 8 that need no download, for tests and first steps."""

import numpy as np

from hamjepa_jax.data.split import ArraySplit, Source, SourceOptions, source_error
from hamjepa_jax.parts import sources

TEST_EVERY = 5


@sources.register(
    "digits", form="digits", meaning="scikit-learn's handwritten digits, 8 × 8 pixels; nothing is downloaded"
)
def open_digits(rest: str, options: SourceOptions) -> Source:
    """Opens "digits". Every fifth image of each class is held out: 1,442 for training, 355 for testing.

    Raises:
      UserError: if anything follows the name.
    """
    del options  # Nothing is fetched.
    if rest:
        raise source_error(f"digits:{rest}", 'the digits take no argument; write "digits".')
    from sklearn.datasets import load_digits  # takes a second to import

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(images[..., None], 3, axis=-1)
    labels = digits.target.astype(np.int32)
    position = np.zeros(len(labels), int)  # of each image within its class
    for c in range(10):
        position[labels == c] = np.arange((labels == c).sum())
    test = position % TEST_EVERY == TEST_EVERY - 1
    names = tuple(str(d) for d in range(10))
    return Source(
        name="digits",
        train=ArraySplit(images[~test], labels[~test], names),
        test=ArraySplit(images[test], labels[test], names),
    )
