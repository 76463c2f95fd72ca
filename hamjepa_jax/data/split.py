"""The form of a data set in this package: two splits of RGB images, with labels or without."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard

import numpy as np

from hamjepa_jax.errors import UserError

SAMPLED_IMAGES = 64  # Of a split, for the fingerprint.
SHOWN = 5  # Names in a message.
UNLABELLED = -1  # The label of every image of a split without classes: no class has this position.


# -- Factors ----------------------------------------------------------------------------------------------

FACTOR_KINDS = ("categorical", "linear", "periodic")


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """What is known of each image of a split beside its class, as of images that were drawn.

    Attributes:
      values: [n] or [n, k]; NaN where an image does not show it, such as the rotation of a disc.
      kind: "categorical", whole numbers from 0; "linear"; or "periodic", in turns: 0 and 1 are the same.

    Raises:
      ValueError: if there is no such kind, or the values of a categorical factor are no whole numbers from 0.
    """

    values: np.ndarray
    kind: str

    def __post_init__(self):
        if self.kind not in FACTOR_KINDS:
            raise ValueError(f"the kind of a factor must be one of {', '.join(FACTOR_KINDS)}, got {self.kind!r}.")
        whole = np.issubdtype(self.values.dtype, np.integer)
        if self.kind == "categorical" and not (whole and (self.values >= 0).all()):
            raise ValueError(f"the values of a categorical factor must be whole numbers from 0, got {self.values}.")


def factors_of(split: "Split") -> Mapping[str, Factor]:
    """What is known of the split's images, by name; empty for photographs and the like."""
    return getattr(split, "factors", {})


# -- Splits -----------------------------------------------------------------------------------------------


class Split(Protocol):
    """One half of a data set. Images may differ in size unless the split is an ArraySplit.

    A split without labels has no class_names, and UNLABELLED for every label.

    A split that knows more of its images than their classes has `factors`, see `factors_of`.
    """

    labels: np.ndarray  # [n] int32, positions in class_names
    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def image(self, i: int) -> np.ndarray:
        """Image i: [h, w, 3] uint8."""
        ...

    if TYPE_CHECKING:  # Kinds of splits are told apart by what they have.

        def __getattr__(self, name: str) -> Any: ...


class EncodedSplit(Split, Protocol):
    """A split that reads and decodes an image when it is asked for it. So images may turn out to be broken.

    A split that reads its labels from all its images, and so checks them itself, says `labels_checked = True`. One
    whose images may be replaced by others under the same `identity()` has `written()`: bytes that change then, so
    that decoded images are not taken from the cache.
    """

    def encoded(self, i: int) -> bytes:
        """Image i as it is stored: a JPEG, PNG or WebP.

        Raises:
          BrokenImage: if it cannot be read.
        """
        ...

    def where(self, i: int) -> str:
        """Where a user finds image i: its path, or the like."""
        ...

    def identity(self) -> bytes:
        """A hash that tells the split from others, made without reading the images."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySplit:
    """A split in memory.

    Attributes:
      images: [n, h, w, 3] uint8.
      labels: [n] int32, positions in class_names.
      class_names: one name per class.
      factors: what else is known of each image, by name.

    Raises:
      ValueError: if shapes or types are others than these.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    factors: Mapping[str, Factor] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        self._check_images()
        images, labels = self.images, self.labels
        if labels.shape != images.shape[:1] or labels.dtype != np.int32:
            raise ValueError(f"labels must be int32 {images.shape[:1]}, got {labels.dtype} {labels.shape}.")
        for name, factor in self.factors.items():
            if factor.values.shape[:1] != images.shape[:1]:
                raise ValueError(f"factor {name!r} has values {factor.values.shape} for {len(images)} images.")

    def _check_images(self) -> None:
        if self.images.ndim != 4 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8:
            raise ValueError(f"images must be [n, h, w, 3] uint8, got {self.images.shape} {self.images.dtype}.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(h, w, 3)."""
        return self.images.shape[-3:]

    def image(self, i: int) -> np.ndarray:
        return self.images[i]


@dataclasses.dataclass(frozen=True, eq=False)
class ClipSplit(ArraySplit):
    """Clips in memory: an example is T frames, one time step apart. As one image it is its first frame.

    Attributes:
      images: [n, T, h, w, 3] uint8.
      labels, class_names, factors: as in `ArraySplit`, one for each clip.
      states: [n, T, 2d] true positions, then momenta, of the frames; None if they are not known.
      energies: [n, T] true energies of the frames; None if they are not known.
      dt: time from one frame to the next.

    Raises:
      ValueError: if shapes or types are others than these.
    """

    states: np.ndarray | None = None
    energies: np.ndarray | None = None
    dt: float = 1.0

    def _check_images(self) -> None:
        if self.images.ndim != 5 or self.images.shape[-1] != 3 or self.images.dtype != np.uint8:
            raise ValueError(f"clips must be [n, T, h, w, 3] uint8, got {self.images.shape} {self.images.dtype}.")
        frames = self.images.shape[:2]
        if self.states is not None and (self.states.ndim != 3 or self.states.shape[:2] != frames):
            raise ValueError(f"states must be {[*frames]} and a last axis, got {self.states.shape}.")
        if self.energies is not None and self.energies.shape != frames:
            raise ValueError(f"energies must be {frames}, got {self.energies.shape}.")

    @property
    def num_frames(self) -> int:
        """T."""
        return self.images.shape[1]

    def image(self, i: int) -> np.ndarray:
        return self.images[i, 0]


@dataclasses.dataclass(frozen=True)
class ShapeSplit:
    """A split of n images of one size that are not there: enough to compile a training step.

    Attributes:
      n: number of images.
      height: of an image in pixels; likewise width.
    """

    n: int
    height: int
    width: int
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.n

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(h, w, 3)."""
        return self.height, self.width, 3

    def image(self, i: int) -> np.ndarray:
        """Refused: there are none.

        Raises:
          ValueError: always.
        """
        raise ValueError("a ShapeSplit has a shape and no images.")


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedRows:
    """Some images of an encoded split.

    Attributes:
      split: the whole.
      rows: [n] positions in it.
    """

    split: EncodedSplit
    rows: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        return self.split.labels[self.rows]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.split.class_names

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, i: int) -> np.ndarray:
        return self.split.image(int(self.rows[i]))

    def encoded(self, i: int) -> bytes:
        return self.split.encoded(int(self.rows[i]))

    def where(self, i: int) -> str:
        return self.split.where(int(self.rows[i]))

    def identity(self) -> bytes:
        return hashlib.sha256(self.split.identity() + np.asarray(self.rows, "<i8").tobytes()).digest()


def rows_of(split: Split, rows: np.ndarray) -> Split:
    """The images of a split at these positions [n], with their labels."""
    if is_encoded(split):
        return EncodedRows(split, np.asarray(rows))
    return ArraySplit(split.images[rows], split.labels[rows], split.class_names)


def frames_of(split: Split) -> int | None:
    """Frames of each example of a split of clips; None for images."""
    return getattr(split, "num_frames", None)


def is_encoded(split: Split) -> TypeGuard[EncodedSplit]:
    """Whether a split reads its images when they are asked for."""
    return hasattr(split, "encoded")


# -- Sources ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """A data set: its name in tables and figures, and its splits."""

    name: str
    train: Split
    test: Split

    @property
    def labelled(self) -> bool:
        """Whether its images have classes."""
        return bool(self.train.class_names)

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
                image = split.images[i] if frames_of(split) else split.image(i)
                digest.update(repr(image.shape).encode())
                digest.update(np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()[:16]


class SourceOptions(NamedTuple):
    """How a source is opened.

    Attributes:
      cache_dir: folder for fetched files.
      loader: data.loader of the config, "grain" or "tfdata".
    """

    cache_dir: str
    loader: str


def source_error(spec: str, problem: str) -> UserError:
    """The error for a data set that cannot be used: the field, its value, and the problem with its remedy."""
    return UserError(f'data.source "{spec}": {problem}')


def check_source(source: Source) -> None:
    """Refuses a data set that could be trained on but not evaluated.

    Labels that a split reads from all its images are left out here: the split checks them as it reads them.

    Raises:
      UserError: naming the split and the range, if labels are no positions in class_names, training and test images
        have other classes or the same in another order, or images are missing (the test split needs two).
    """
    for part, split, least in (("training", source.train, 1), ("test", source.test, 2)):
        if len(split) < least:
            number = "1 image" if len(split) else "no images"
            raise source_error(source.name, f"the {part} split has {number}; it needs {least} or more.")
        if not getattr(split, "labels_checked", False):
            check_labels(source.name, part, split.labels, len(split), split.class_names)
    train, test = source.train.class_names, source.test.class_names
    if tuple(train) == tuple(test):
        return
    if sorted(train) == sorted(test):
        at = next(k for k, (a, b) in enumerate(zip(train, test, strict=True)) if a != b)
        raise source_error(
            source.name,
            f'class_names of the training and of the test split are in another order: class {at} is "{train[at]}" '
            f'in training and "{test[at]}" in test; use one order and number the labels by it.',
        )
    only = [f'"{name}"' for name in (*train, *test) if (name in train) != (name in test)]
    raise source_error(
        source.name,
        f"the training split has {len(train)} class_names and the test split {len(test)}, and they differ "
        f"({', '.join(only[:SHOWN])}{', ...' if len(only) > SHOWN else ''}); both need the same.",
    )


def check_labels(name: str, part: str, labels: np.ndarray, n: int, class_names: tuple[str, ...]) -> None:
    """Refuses labels that are no positions in class_names.

    Raises:
      UserError: naming the split and the range.
    """
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise source_error(
            name, f"the {part} labels are {labels.dtype} {labels.shape}; expected whole numbers ({n},)."
        )
    low, high = int(labels.min()), int(labels.max())
    if not class_names and low == high == UNLABELLED:
        return
    if low < 0 or high >= len(class_names):
        raise source_error(
            name,
            f"the {part} labels run from {low} to {high}, but class_names has {len(class_names)} "
            f"name{'s' * (len(class_names) != 1)}; expected labels 0 ... {len(class_names) - 1}, or more names.",
        )
