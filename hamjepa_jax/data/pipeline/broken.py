"""Images of a split where some may be broken: replaced in training, never passed over in silence."""

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import numpy as np

from hamjepa_jax.data.images.decode import Box, BrokenImage, crop_and_resize, decode_crops
from hamjepa_jax.data.split import Split, is_encoded
from hamjepa_jax.errors import UserError

T = TypeVar("T")
SHOWN = 5  # paths in a message
log = logging.getLogger(__name__)


class Broken(NamedTuple):
    """An image that cannot be decoded: its position, what a user finds it by, and what is wrong with it."""

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
    """read(i), or of the first image behind i that can be read; which one that is depends on the data alone.

    Args:
      split: the images.
      i: position of the wanted image.
      read: raises BrokenImage where it cannot.
      max_broken_share: of the split's images; no more are passed over.

    Returns:
      What was read, and the broken images that were passed over.

    Raises:
      UserError: listing them, if too many are broken.
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
    """The broken images of a split that were met: each is named once in the log, and too many are refused."""

    def __init__(self, n: int, max_broken_share: float, fate: str = "another image takes the place of"):
        """n: images of the split. fate: what the log says is done with a broken one."""
        self._n, self._max_broken_share, self._fate = n, max_broken_share, fate
        self._seen: dict[int, Broken] = {}

    @property
    def indices(self) -> list[int]:
        """Positions of those met so far, ascending."""
        return sorted(self._seen)

    def report(self, met: Iterable[tuple]) -> None:
        """Raises UserError, listing all so far, if they are too many."""
        for index, where, reason in met:
            if index not in self._seen:
                self._seen[index] = Broken(index, where, reason)
                log.warning("%s %s: %s", self._fate, where, reason)
        check_share(list(self._seen.values()), self._n, self._max_broken_share)


def check_share(broken: list[Broken], n: int, max_broken_share: float) -> None:
    """Refuses more broken images than that share of n, and nothing but broken ones.

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
