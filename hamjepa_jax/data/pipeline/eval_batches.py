"""Evaluation images: every image of a split in order, resized and cut to a square on the host."""

from collections.abc import Callable, Iterator

import grain
import numpy as np

from hamjepa_jax.data.images.decode import BrokenImage, resize_and_center_crop
from hamjepa_jax.data.pipeline.broken import Broken, listing
from hamjepa_jax.data.split import Split, is_encoded
from hamjepa_jax.errors import UserError


def eval_batches(
    split: Split,
    *,
    resize: int | None,
    size: int,
    batch_size: int,
    num_threads: int,
    on_broken: Callable[[Broken], None] | None = None,
) -> Iterator[np.ndarray]:
    """All of the split's images as they are evaluated.

    Args:
      split: the images.
      resize: shorter side before the central square is cut out; None takes images as they are.
      size: side of the square.
      batch_size: images in a batch; the last may have fewer.
      num_threads: that decode.
      on_broken: called for every image that cannot be decoded. The image is black in its batch, so that rows and
        labels still belong together. The caller has to leave these rows out and say so.

    Returns:
      An iterator over [b, size, size, 3] uint8. Leaving it in any way ends its threads.

    Raises:
      UserError: while iterating, at a broken image if there is no on_broken; without `resize`, at an image that is
        smaller than its square.
      ValueError: while iterating, if `resize` is smaller than the square.
    """
    dataset = grain.MapDataset.source(_Squares(split, resize, size)).to_iter_dataset(
        grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=4 * num_threads)
    )
    return _batched(dataset, split, size, batch_size, on_broken)


def _batched(dataset, split: Split, size: int, batch_size: int, on_broken) -> Iterator[np.ndarray]:
    iterator = iter(dataset)
    try:
        for start in range(0, len(split), batch_size):
            batch = np.zeros((min(batch_size, len(split) - start), size, size, 3), np.uint8)
            for row in range(len(batch)):
                square = next(iterator)
                if isinstance(square, Broken):
                    if on_broken is None:
                        raise UserError(
                            f"{listing([square])}; evaluation passes nothing over in silence. Repair or remove it."
                        )
                    on_broken(square)
                else:
                    batch[row] = square
            yield batch
    finally:
        iterator.close()


class _Squares:
    """Random access to the squares; in place of a broken image it gives a `Broken`."""

    def __init__(self, split: Split, resize: int | None, size: int):
        self._split, self._resize, self._size = split, resize, size

    def __repr__(self) -> str:
        return f"squares of {self._size} pixels"

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, i: int) -> np.ndarray | Broken:
        try:
            image = self._split.image(i)
        except BrokenImage as error:
            return Broken(int(i), self._split.where(i), str(error))
        height, width = image.shape[:2]
        if self._resize is None and min(height, width) < self._size:
            where = self._split.where(i) if is_encoded(self._split) else f"image {i}"
            raise UserError(
                f"data.eval_resize is not set: {where} has {height} x {width} pixels, too few for the square of "
                f"{self._size} x {self._size}; set data.eval_resize to {self._size} or more, the shorter side to "
                f"resize images to."
            )
        return resize_and_center_crop(image, self._resize, self._size)
