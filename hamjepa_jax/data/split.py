"""What a data set looks like to the rest of the package: two splits of labelled RGB images."""

import dataclasses
import hashlib
from typing import Protocol, TypeGuard

import numpy as np

from hamjepa_jax.errors import UserError

SAMPLED_IMAGES = 64  # per split, for the fingerprint


class Split(Protocol):
    """One half of a data set. Images may differ in size unless the split is an ArraySplit."""

    labels: np.ndarray  # [n] int32, positions in class_names
    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def image(self, i: int) -> np.ndarray:
        """Image i: [h, w, 3] uint8."""
        ...


class EncodedSplit(Split, Protocol):
    """A split whose images are read and decoded when they are asked for, and so may turn out to be broken."""

    def encoded(self, i: int) -> bytes:
        """Image i as it is stored: a JPEG, PNG or WebP.

        Raises:
          BrokenImage: if it cannot be read.
        """
        ...

    def where(self, i: int) -> str:
        """What a user finds image i by: its path, or the like."""
        ...

    def identity(self) -> bytes:
        """What tells the split from others, found without reading the images."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split in memory.

    Attributes:
      images: [n, h, w, 3] uint8.
      labels: [n] int32, positions in class_names.
      class_names: one name per class.

    Raises:
      ValueError: if shapes or types are others than these.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise ValueError(f"images must be [n, h, w, 3] uint8, got {images.shape} {images.dtype}.")
        if labels.shape != images.shape[:1] or labels.dtype != np.int32:
            raise ValueError(f"labels must be int32 {images.shape[:1]}, got {labels.dtype} {labels.shape}.")

    def __len__(self) -> int:
        return len(self.images)

    def image(self, i: int) -> np.ndarray:
        return self.images[i]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A data set: what it is called in tables and figures, and its splits."""

    name: str
    train: Split
    test: Split

    def fingerprint(self) -> str:
        """16 hex digits that tell data sets apart, used to refuse resuming a run on other data.

        A function of the content alone (sizes, labels, class names and a strided sample of the images), so the same
        data reached by another path or unpacked from another archive has the same fingerprint. Images that are not
        in memory are not read for it: see `EncodedSplit.identity`.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.test):
            if is_encoded(split):
                digest.update(split.identity())
                continue
            digest.update(repr((len(split), split.class_names)).encode())
            digest.update(np.ascontiguousarray(split.labels, "<i4").tobytes())
            for i in range(0, len(split), max(1, len(split) // SAMPLED_IMAGES)):
                image = split.image(i)
                digest.update(repr(image.shape).encode())
                digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()[:16]


def is_encoded(split: Split) -> TypeGuard[EncodedSplit]:
    """Whether a split reads its images when they are asked for."""
    return hasattr(split, "encoded")


def source_error(spec: str, problem: str) -> UserError:
    """The error for a data set that cannot be used: names the field, its value and the problem with what to do."""
    return UserError(f'data.source "{spec}": {problem}')
