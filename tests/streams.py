"""Streams of crops as tests want them, for several test files and the programs they start."""

import itertools

import jax
from numpy.testing import assert_array_equal

from hamjepa_jax.data import ViewSpec, stream_batches


def spec(size, scale=(0.4, 1.0)):
    return ViewSpec(
        size=size, scale=scale, ratio=(3 / 4, 4 / 3), flip_prob=0.5, jitter_prob=0.8, brightness=0.4,
        contrast=0.4, saturation=0.2, hue=0.1, grayscale_prob=0.2, blur_prob=0.5, blur_sigma=(0.1, 2.0),
        blur_kernel=3, solarize_prob=0.2, solarize_threshold=128 / 255,
    )  # fmt: skip


SPECS = ((spec(16), 2), (spec(9, (0.05, 0.4)), 3))


def stream(split, **changes):
    defaults = dict(
        seed=5, first_step=0, batch_size=6, specs=SPECS, num_threads=2, num_workers=0, process_index=0,
        process_count=1, max_broken_share=0.0,
    )  # fmt: skip
    return stream_batches(split, **defaults | changes)


def take(batches, count):
    """The first batches of a stream, which is then closed."""
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        jax.tree.map(assert_array_equal, x, y)
