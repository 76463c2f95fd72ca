"""Broken images of a split: each is named in the log, and another image takes its place in training."""

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import numpy as np

from hamjepa_jax.data.images.decode import Box, BrokenImage, crop_and_resize, decode_crops
from hamjepa_jax.data.split import Split, is_encoded
from hamjepa_jax.errors import UserError

T = TypeVar("T")
SHOWN = 5  # Paths in a message.
log = logging.getLogger(__name__)


class Broken(NamedTuple):
    """An image that cannot be decoded: its position, where a user finds it, and what is wrong with it."""

    index: int
    where: str
    reason: str


def read_crops(split: Split, i: int, draw: Callable[[int, int], list[tuple[Box, int]]]) -> list[np.ndarray]:
    """Crops of image i; `draw` as in `decode_crops`.

    Raises:
      BrokenImage: if the image cannot be decoded.
    """
    if is_encoded(split):
        return decode_crops(split.encoded(i), draw)
    image = split.image(i)
    return [crop_and_resize(image, box, side) for box, side in draw(*image.shape[:2])]


def read_or_next(
    split: Split, i: int, read: Callable[[int], T], *, max_broken_share: float
) -> tuple[T, list[Broken]]:
    """read(i), or read(j) of the first image j after i that can be read. So j depends on the data alone.

    Args:
      split: the images.
      i: position of the wanted image.
      read: gives something of an image, or raises BrokenImage.
      max_broken_share: largest share of the split's images that may be broken.

    Returns:
      The result of `read`, and the broken images before it.

    Raises:
      UserError: listing the broken images, if they are too many.
    """
    broken: list[Broken] = []
    while True:
        j = (i + len(broken)) % len(split)
        try:
            return read(j), broken
        except BrokenImage as error:
            broken.append(Broken(j, split.where(j), str(error)))
            check_share(broken, len(split), max_broken_share)


class BrokenImages:
    """The broken images of a split that have been met: each is named once in the log, and too many are refused."""

    def __init__(self, n: int, max_broken_share: float, fate: str = "another image takes the place of"):
        """None so far.

        Args:
          n: images of the split.
          max_broken_share: largest share of them that may be broken.
          fate: how the line in the log begins; it says what happens to a broken image.
        """
        self._n, self._max_broken_share, self._fate = n, max_broken_share, fate
        self._seen: dict[int, Broken] = {}

    @property
    def indices(self) -> list[int]:
        """Positions of those met so far, ascending."""
        return sorted(self._seen)

    def report(self, met: Iterable[tuple]) -> None:
        """Notes broken images, as tuples (index, where, reason).

        Raises:
          UserError: listing all so far, if they are too many.
        """
        for index, where, reason in met:
            if index not in self._seen:
                self._seen[index] = Broken(index, where, reason)
                log.warning("%s %s: %s", self._fate, where, reason)
        check_share(list(self._seen.values()), self._n, self._max_broken_share)


def check_share(broken: list[Broken], n: int, max_broken_share: float) -> None:
    """Refuses a split of n images if more than this share of them is broken, or all of them.

    Raises:
      UserError: listing the first few of them.
    """
    if len(broken) > max_broken_share * n or len(broken) == n:
        raise UserError(
            f"data.max_broken_share {max_broken_share}: {listing(broken)}; that is more than this share of the {n} "
            "images. Repair or remove the files, or allow a larger share."
        )


def listing(broken: list[Broken]) -> str:
    """ "2 broken images: PATH (why), PATH (why)"."""
    shown = ", ".join(f"{b.where} ({b.reason})" for b in broken[:SHOWN])
    more = f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else ""
    return f"{len(broken)} broken image{'s' if len(broken) > 1 else ''}: {shown}{more}"
