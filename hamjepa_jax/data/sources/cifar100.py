"""CIFAR-100 from its official archives, in the Python or the binary version, packed or unpacked."""

import contextlib
import dataclasses
import io
import os
import pathlib
import pickle
import re
import tarfile
import zlib
from collections.abc import Callable

import numpy as np

from hamjepa_jax.data.sources import download
from hamjepa_jax.data.sources.options import parted
from hamjepa_jax.data.split import ArraySplit, Source, SourceOptions, source_error
from hamjepa_jax.parts import sources

SIDE = 32
PIXELS = 3 * SIDE * SIDE
RECORD = 2 + PIXELS  # binary version: coarse label, fine label, then red, green and blue planes


@dataclasses.dataclass(frozen=True)
class Archive:
    """Where a data set is published."""

    url: str
    known_hash: str


ARCHIVE = Archive(
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "md5:eb9058c3a382ffc7106e4002c42a8d85"
)
FOLDERS = ("cifar-100-python", "cifar-100-binary")  # as packed in the archives, which are FOLDER.tar.gz

Reader = Callable[[str], bytes]  # a file's name -> its content


@sources.register(
    "cifar100",
    form="cifar100:[DIR][?labels=coarse&train=N]",
    meaning="CIFAR-100 from its official archives, in DIR or downloaded (169 MB)",
)
def open_cifar100(rest: str, options: SourceOptions, *, archive: Archive = ARCHIVE) -> Source:
    """Opens "cifar100:", "cifar100:DIR" or "cifar100:FILE.tar.gz", each with options if wanted.

    The options are "?labels=coarse", "?train=N", or both joined by "&". Of N training images every class has as
    many, or one more: the first of the archive.

    DIR holds (or is) the unpacked folder of either version, or holds the archive. If it holds neither, the Python
    version (169 MB) is fetched into it; without DIR, into the cache folder. Archives are read without unpacking.

    Args:
      rest: the text after "cifar100:".
      options: options.cache_dir is the folder for an empty DIR.
      archive: to fetch.

    Raises:
      UserError: if the data are neither there nor can be fetched, or are damaged, or the option is unknown.
    """
    spec = f"cifar100:{rest}"
    place, coarse, limit = _parse(spec, rest)
    path = pathlib.Path(os.path.expanduser(place)) if place else pathlib.Path(options.cache_dir)
    found = _find(spec, path) or _fetch(spec, path, archive)
    try:
        with _reader(found) as (read, names):
            train, test = (_read_binary if "train.bin" in names else _read_python)(read, coarse)
    except KeyError as error:
        raise source_error(
            spec, f"{found} lacks {error.args[0]}; remove it and unpack or download the archive again."
        ) from error
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError, pickle.UnpicklingError) as error:
        raise source_error(
            spec, f"{found} is damaged ({error}); remove it and unpack or download the archive again."
        ) from error
    if limit is not None and limit > len(train):
        raise source_error(spec, f"there are {len(train)} training images; ask for as many or fewer.")
    return Source("cifar100-coarse" if coarse else "cifar100", _first_of_classes(train, limit), test)


def _parse(spec: str, rest: str) -> tuple[str, bool, int | None]:
    """(the place, whether the labels are coarse, number of training images or None for all)."""
    place, options = parted(rest)
    coarse, limit = False, None
    for text, name, value in options:
        if name == "labels" and value in ("fine", "coarse"):
            coarse = value == "coarse"
        elif name == "train" and re.fullmatch(r"[1-9]\d{0,8}", value):
            limit = int(value)
        else:
            raise source_error(
                spec,
                f'unknown option "{text}"; expected labels=fine, labels=coarse, or train=N with N from 1 on.',
            )
    return place, coarse, limit


def _first_of_classes(split: ArraySplit, limit: int | None) -> ArraySplit:
    """The first images of each class, `limit` in all and in the archive's order; all of them if None."""
    if limit is None:
        return split
    nth = np.empty(len(split), int)  # An image's number among those of its class.
    for label in np.unique(split.labels):
        rows = np.flatnonzero(split.labels == label)
        nth[rows] = np.arange(len(rows))
    chosen = np.sort(np.argsort(nth, kind="stable")[:limit])
    return ArraySplit(split.images[chosen], split.labels[chosen], split.class_names)


# -- Where the files are ----------------------------------------------------------------------------------


def _find(spec: str, path: pathlib.Path) -> pathlib.Path | None:
    """The unpacked folder or the archive at or in `path`; None if there is none."""
    if path.name.endswith((".tar.gz", ".tgz")):
        if not path.is_file():
            raise source_error(spec, "there is no such file; expected cifar-100-python.tar.gz or its folder.")
        return path
    if path.exists() and not path.is_dir():
        raise source_error(spec, "this is a file; expected a folder or a .tar.gz archive.")
    if any((path / name).is_file() for name in ("train.bin", "train")):
        return path
    candidates = [path / folder for folder in FOLDERS] + [path / f"{folder}.tar.gz" for folder in FOLDERS]
    return next((c for c in candidates if c.exists()), None)


def _fetch(spec: str, path: pathlib.Path, archive: Archive) -> pathlib.Path:
    target = path / archive.url.rsplit("/", 1)[-1]
    try:
        download.fetch(archive.url, target, known_hash=archive.known_hash)
    except download.DownloadError as error:
        raise source_error(
            spec,
            f"no CIFAR-100 in {path}, and it could not be fetched ({error}); "
            f"download {archive.url} elsewhere and put it at {target}.",
        ) from error
    return target


@contextlib.contextmanager
def _reader(found: pathlib.Path):
    """Gives a function from a file's name to its bytes (KeyError if missing), and the names of the files there."""
    if found.is_dir():
        names = [f.name for f in found.iterdir()]

        def read(name):
            if name not in names:
                raise KeyError(name)
            return (found / name).read_bytes()

        yield read, names
        return
    with tarfile.open(found, "r:gz") as tar:
        members = {pathlib.PurePosixPath(m.name).name: m for m in tar if m.isfile()}
        yield lambda name: tar.extractfile(members[name]).read(), list(members)


# -- The two versions ---------------------------------------------------------------------------------------


def _read_python(read: Reader, coarse: bool) -> tuple[ArraySplit, ArraySplit]:
    kind = "coarse" if coarse else "fine"
    names = tuple(map(_as_text, _unpickle(read("meta"))[f"{kind}_label_names"]))
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError("the class names are no different texts")
    splits = []
    for part in ("train", "test"):
        content = _unpickle(read(part))
        splits.append(_split(content["data"], content[f"{kind}_labels"], names))
    return tuple(splits)


def _read_binary(read: Reader, coarse: bool) -> tuple[ArraySplit, ArraySplit]:
    kind = "coarse" if coarse else "fine"
    names = tuple(read(f"{kind}_label_names.txt").decode().split())
    splits = []
    for part in ("train", "test"):
        content = np.frombuffer(read(f"{part}.bin"), np.uint8)
        if len(content) % RECORD:
            raise ValueError(f"{part}.bin is not a whole number of records of {RECORD} bytes")
        records = content.reshape(-1, RECORD)
        splits.append(_split(records[:, 2:], records[:, 0 if coarse else 1], names))
    return tuple(splits)


def _split(data, labels, names: tuple[str, ...]) -> ArraySplit:
    """Both versions hold an image as a row of 3072 bytes: planes red, green, blue, each row by row."""
    data, labels = np.asarray(data), np.asarray(labels)
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS or labels.shape != data.shape[:1]:
        raise ValueError(f"images are {data.dtype} {data.shape} with {labels.shape} labels")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError("the labels are no whole numbers")
    if not len(labels) or labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f"the labels do not fit the {len(names)} class names")
    images = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return ArraySplit(np.ascontiguousarray(images), labels.astype(np.int32), names)


class _ArrayUnpickler(pickle.Unpickler):
    """Loads what the archive consists of (dicts, lists, strings, numbers, NumPy arrays) and calls nothing else."""

    ALLOWED = frozenset(
        (module, name)
        for core in ("numpy.core", "numpy._core")
        for module, name in (
            (f"{core}.multiarray", "_reconstruct"),
            (f"{core}.multiarray", "scalar"),
            (f"{core}.numeric", "_frombuffer"),
        )
    ) | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which the data set does not")
        return super().find_class(module, name)


def _unpickle(content: bytes) -> dict:
    try:
        # The official files are Python 2's. Latin-1 keeps its byte strings (keys, names, pixels) as they are.
        loaded = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # damaged pickles raise whatever their bytes happen to mean
        raise pickle.UnpicklingError(f"{type(error).__name__} while unpickling") from error
    if not isinstance(loaded, dict):
        raise pickle.UnpicklingError("it does not hold a dictionary")
    return {_as_text(key): value for key, value in loaded.items()}


def _as_text(name: str | bytes) -> str:
    """A key or a class name; archives that were pickled again by Python 3 may have bytes or NumPy's strings."""
    return name.decode() if isinstance(name, bytes) else str(name) if isinstance(name, str) else name
