"""The crops of random views of chosen images, cut on the host: for evaluations that compare views of an image."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hamjepa_jax.data.images.boxes import draw_box
from hamjepa_jax.data.images.views import ViewSpec
from hamjepa_jax.data.pipeline.broken import read_crops
from hamjepa_jax.data.split import Split


def view_crops(
    split: Split, rows: Sequence[int], spec: ViewSpec, count: int, *, seed: int, images: int, num_threads: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Crops of `count` views of each chosen image, to be finished by `photometric_views`.

    A view is a function of (seed, image, number of the view): that of epoch 0 where images are streamed.

    Args:
      split: the images, in memory or encoded.
      rows: positions of the chosen ones.
      spec: of the views.
      count: views of an image.
      seed: of the draw.
      images: in a batch; the last may have fewer.
      num_threads: that decode and cut.

    Returns:
      An iterator over (positions [b], crops [b, count, size, size, 3] uint8).

    Raises:
      BrokenImage: while iterating, at an image that cannot be decoded.
    """

    def crops_of(i: int) -> np.ndarray:
        def draw(height: int, width: int) -> list:
            shape = dict(height=height, width=width, scale=spec.scale, ratio=spec.ratio)
            return [(draw_box(seed, 0, i, number, **shape), spec.size) for number in range(count)]

        return np.stack(read_crops(split, i, draw))

    rows = np.asarray(rows, np.int32)
    with ThreadPoolExecutor(num_threads) as pool:
        for start in range(0, len(rows), images):
            batch = rows[start : start + images]
            yield batch, np.stack(list(pool.map(crops_of, batch.tolist())))
