"""Your own images as one NumPy file."""

import os
import tokenize
import zipfile
import zlib

import numpy as np

from hamjepa_jax.data.split import ArraySplit, Source, SourceOptions, source_error
from hamjepa_jax.parts import sources

KEYS = ("train_images", "train_labels", "test_images", "test_labels", "class_names")


@sources.register("arrays", form="arrays:FILE.npz", meaning="images of your own as one NumPy file")
def open_arrays(rest: str, options: SourceOptions) -> Source:
    """Opens "arrays:FILE.npz", as numpy.savez writes it.

    Keys: train_images and test_images [n, h, w, 3] uint8 (RGB), train_labels and test_labels [n] whole numbers
    from 0, class_names [classes] strings.

    Raises:
      UserError: if the file is missing or not such a file.
    """
    del options  # Nothing is fetched.
    spec, path = f"arrays:{rest}", os.path.expanduser(rest)
    if not rest:
        raise source_error(spec, "expected arrays:FILE.npz.")
    if not os.path.isfile(path):
        raise source_error(spec, "there is no such file; expected one written by numpy.savez.")
    if not zipfile.is_zipfile(path):
        raise source_error(spec, "the file is not an .npz archive; write it with numpy.savez.")
    data = _read(spec, path)
    class_names = _class_names(spec, data["class_names"])
    splits = [
        ArraySplit(
            _images(spec, f"{part}_images", data[f"{part}_images"]),
            _labels(spec, part, data[f"{part}_labels"], data[f"{part}_images"], class_names),
            class_names,
        )
        for part in ("train", "test")
    ]
    if splits[0].images.shape[1:] != splits[1].images.shape[1:]:
        shapes = " and ".join(str(s.images.shape[1:]) for s in splits)
        raise source_error(spec, f"training and test images must be of one size, got {shapes}.")
    counts = np.bincount(splits[0].labels, minlength=len(class_names))
    if not counts.all():
        empty = class_names[int(np.argmin(counts))]
        raise source_error(
            spec, f'class "{empty}" has no training image; leave it out of class_names and renumber the labels.'
        )
    name = os.path.splitext(os.path.basename(path))[0]
    return Source(name=name, train=splits[0], test=splits[1])


def _read(spec: str, path: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in KEYS if key not in archive.files]
            if missing:
                raise source_error(spec, f"the file lacks {', '.join(missing)}; expected {', '.join(KEYS)}.")
            return {key: _read_array(spec, archive, key) for key in KEYS}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise source_error(spec, f"the file is damaged ({error}); write it again.") from error


def _read_array(spec: str, archive, key: str) -> np.ndarray:
    try:
        array = archive[key]
    except MemoryError as error:
        raise source_error(spec, f"{key} does not fit into memory ({error}), or its header is damaged.") from None
    except (ValueError, tokenize.TokenError):
        # An array of objects is a pickle, which can run code when it is read: never allowed. Or a damaged header.
        array = None
    if not isinstance(array, np.ndarray):
        raise source_error(spec, f"{key} is no plain array of numbers or strings; write the file with numpy.savez.")
    return array


def _images(spec: str, key: str, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise source_error(
            spec, f"{key} is {images.dtype} {images.shape}; expected uint8 [n, height, width, 3] with n > 0."
        )
    return images


def _labels(spec: str, part: str, labels: np.ndarray, images: np.ndarray, class_names) -> np.ndarray:
    key = f"{part}_labels"
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise source_error(spec, f"{key} is {labels.dtype} {labels.shape}; expected whole numbers [n].")
    if len(labels) != len(images):
        raise source_error(
            spec, f"{key} has {len(labels)} entries for {len(images)} images; expected one for each."
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise source_error(
            spec,
            f"{key} runs from {labels.min()} to {labels.max()}, but class_names has {len(class_names)} names; "
            f"expected labels 0 ... {len(class_names) - 1}, or more names.",
        )
    return labels.astype(np.int32)


def _class_names(spec: str, names: np.ndarray) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names) or not len(names):
        raise source_error(
            spec, f"class_names is {names.dtype} {names.shape}; expected a list of different strings."
        )
    return tuple(names.tolist())
