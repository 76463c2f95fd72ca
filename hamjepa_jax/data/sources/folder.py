"""Folders of photographs, one folder for each class: read and decoded when they are asked for."""

import collections
import dataclasses
import hashlib
import logging
import os
import pathlib
import re
import unicodedata
from typing import NamedTuple

import numpy as np

from hamjepa_jax.data.images.decode import BrokenImage, decode
from hamjepa_jax.data.split import Source, SourceOptions, source_error
from hamjepa_jax.parts import sources

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".png", ".webp")  # in any case
TEST_NAMES = ("val", "test")
SHOWN = 5  # Names in a message.
LAYOUT = "expected train/<class>/*.JPEG and val/<class>/*.JPEG (or train.X1/<class>/… and val.X/<class>/…)"

log = logging.getLogger(__name__)


class File(NamedTuple):
    """A file's path relative to the folder, its size in bytes, and when it was written (ns since 1970)."""

    path: str
    size: int
    time: int


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSplit:
    """Images in files.

    Attributes:
      root: folder that the paths start from.
      paths: [n] of the files, relative to root, ordered by class and then by path.
      sizes: [n] int64, of the files in bytes.
      times: [n] int64, when the files were written, in nanoseconds since 1970.
      labels: [n] int32, positions in class_names.
      class_names: one name per class, sorted.
    """

    root: str
    paths: tuple[str, ...]
    sizes: np.ndarray
    times: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, i: int) -> np.ndarray:
        return decode(self.encoded(i))

    def encoded(self, i: int) -> bytes:
        try:
            with open(self.where(i), "rb") as file:
                return file.read()
        except OSError as error:
            raise BrokenImage(f"it cannot be read ({error.strerror})") from error

    def where(self, i: int) -> str:
        return os.path.join(self.root, self.paths[i])

    def identity(self) -> bytes:
        """A hash of the classes, and of every file's path, class and size."""
        digest = hashlib.sha256(repr(self.class_names).encode("utf-8", "surrogateescape"))
        for path, size, label in zip(self.paths, self.sizes.tolist(), self.labels.tolist(), strict=True):
            digest.update(b"%s\0%d\0%d\0" % (os.fsencode(path), size, label))
        return digest.digest()

    def written(self) -> bytes:
        """A hash of the times at which the files were written: a file replaced by one of equal size changes it."""
        return hashlib.sha256(np.ascontiguousarray(self.times, "<i8").tobytes()).digest()


@sources.register(
    "folder",
    form="folder:DIR",
    meaning="JPEG, PNG and WebP files in DIR/train/<class>/ and DIR/val/<class>/ (or test)",
)
def open_folder(rest: str, options: SourceOptions) -> Source:
    """Opens "folder:DIR" with DIR/train/<class>/… and DIR/val/<class>/… (or test).

    A split may lie in several folders, train.X1, train.X2, …; a class may be in one or in several of them. Images
    are the files with the EXTENSIONS at any depth below their class; names that start with a dot are passed over,
    links are followed.

    Raises:
      UserError: if the folder is laid out otherwise, the splits' classes differ, or a class has no images.
    """
    del options  # Nothing is fetched.
    spec, root = f"folder:{rest}", pathlib.Path(os.path.expanduser(rest))
    if not rest or not root.is_dir():
        raise source_error(spec, f"there is no such folder; {LAYOUT}.")
    parts = sorted(p.name for p in root.iterdir() if p.is_dir())
    found = {name: [p for p in parts if re.fullmatch(rf"{name}(\..+)?", p)] for name in ("train", *TEST_NAMES)}
    if not found["train"]:
        raise source_error(spec, f'the folder has no "train" and no "train.*" inside; {LAYOUT}.')
    test = next((name for name in TEST_NAMES if found[name]), None)
    if test is None:
        raise source_error(spec, f'the folder has no "val" or "test" inside; {LAYOUT}.')
    others: list[str] = []
    files = {name: _files_by_class(spec, root, found[name], others) for name in ("train", test)}
    class_names = _common_classes(spec, files)
    train, held_out = (_split(str(root), by_class, class_names) for by_class in files.values())
    log.info(
        "%s: %d training and %d test images of %d classes in %s%s",
        spec, len(train), len(held_out), len(class_names), ", ".join(found["train"] + found[test]),
        passed_over(others),
    )  # fmt: skip
    return Source(name=root.resolve().name, train=train, test=held_out)


def _files_by_class(spec: str, root: pathlib.Path, parts: list[str], others: list[str]) -> dict[str, list[File]]:
    """Class -> its files. Paths of files that are no images go to `others`."""
    by_class: dict[str, list[File]] = {}
    for part in parts:
        with os.scandir(root / part) as entries:
            folders = sorted(e.name for e in entries if _is_dir(e) and not e.name.startswith("."))
        for folder in folders:
            # One class may be spelt with composed letters on one disk and with combining ones on another.
            name = unicodedata.normalize("NFC", folder)
            by_class.setdefault(name, []).extend(walk(spec, str(root), os.path.join(part, folder), others))
    empty = [name for name, files in by_class.items() if not files]
    if empty:
        raise source_error(
            spec,
            f"no images ({', '.join(EXTENSIONS)}) in {_names(empty)} of {', '.join(parts)}; "
            f"put some there or remove the folder.",
        )
    return by_class


def walk(spec: str, root: str, folder: str, others: list[str]) -> list[File]:
    """Images at any depth below root/folder; paths of other files go to `others`.

    A link to a folder above is not followed: it leads to other classes, or nowhere.
    """
    files: list[File] = []

    def visit(folder: str, ancestors: frozenset[str]) -> None:
        real = os.path.realpath(os.path.join(root, folder))
        if real in ancestors:
            return
        try:
            entries = sorted(os.scandir(os.path.join(root, folder)), key=lambda e: e.name)
        except OSError as error:
            raise source_error(spec, f"{folder} cannot be listed ({error.strerror}).") from error
        for entry in entries:
            path = os.path.join(folder, entry.name)
            if entry.name.startswith("."):
                continue
            if _is_dir(entry):
                visit(path, ancestors | {real})
            elif entry.name.lower().endswith(EXTENSIONS):
                files.append(_file(path, entry))
            else:
                others.append(path)

    above = pathlib.Path(os.path.realpath(os.path.join(root, folder))).parents
    visit(folder, frozenset(map(str, above)))
    return files


def _is_dir(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _file(path: str, entry: os.DirEntry) -> File:
    try:
        found = entry.stat()
    except OSError:  # a link to nothing or to itself: a broken image like others, found when it is read
        return File(path, 0, 0)
    return File(path, found.st_size, found.st_mtime_ns)


def _common_classes(spec: str, files: dict[str, dict]) -> tuple[str, ...]:
    (first, a), (second, b) = files.items()
    if not a:
        raise source_error(spec, f'no class folders in "{first}"; {LAYOUT}.')
    for here, there, missing in ((first, second, a.keys() - b.keys()), (second, first, b.keys() - a.keys())):
        if missing:
            raise source_error(
                spec, f'{_names(sorted(missing))} in "{here}" but not in "{there}"; both need the same classes.'
            )
    return tuple(sorted(a))


def _names(names: list[str]) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{'class' if len(names) == 1 else 'classes'} {shown}{more}"


def passed_over(paths: list[str]) -> str:
    """ "; 4 other files are passed over (3 .bmp, 1 .txt), such as PATH"; an empty text without any."""
    if not paths:
        return ""
    kinds = collections.Counter(os.path.splitext(path)[1].lower() or "without extension" for path in paths)
    shown = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(SHOWN))
    number = f"{len(paths)} other files are" if len(paths) > 1 else "1 other file is"
    return f"; {number} passed over ({shown}), such as {paths[0]}"


def _split(root: str, by_class: dict[str, list[File]], class_names: tuple[str, ...]) -> FolderSplit:
    files = [(label, *file) for label, name in enumerate(class_names) for file in sorted(by_class[name])]
    labels, paths, sizes, times = zip(*files, strict=True)
    return FolderSplit(
        root,
        paths,
        np.asarray(sizes, np.int64),
        np.asarray(times, np.int64),
        np.asarray(labels, np.int32),
        class_names,
    )
