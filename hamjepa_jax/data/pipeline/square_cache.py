"""Splits of files decoded once to squares of one size, kept in a cache folder and mapped into memory.

The array holds the central square of each image, reduced (or enlarged) to size × size. So random crops are drawn
from that square and not from the whole image: a 4:3 photograph loses a quarter. That is the price of having all
images in one array that fits the devices (25 GB for ImageNet-100 at 256 pixels). Streaming crops the whole images.
"""

import concurrent.futures.process
import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import pathlib
import platform
import shutil

import numpy as np

from hamjepa_jax.data.images.decode import BrokenImage, resize_and_center_crop
from hamjepa_jax.data.pipeline.broken import Broken, BrokenImages, read_or_next
from hamjepa_jax.data.pipeline.parallel import in_processes
from hamjepa_jax.data.split import ArraySplit, EncodedSplit
from hamjepa_jax.errors import UserError
from hamjepa_jax.files import locked, make_folder, user_path, write_json, written_at_once

GB = 1e9  # bytes
CHUNK = 2048  # Images that a process decodes at a time.
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Images start … stop−1 to decode into a file."""

    split: EncodedSplit
    path: str
    size: int
    start: int
    stop: int
    max_broken_share: float


def materialize(
    split: EncodedSplit,
    *,
    size: int,
    cache_dir: str | os.PathLike,
    budget_gb: float,
    shares: int,
    workers: int,
    max_broken_share: float,
) -> ArraySplit:
    """The split as an array of squares. It is decoded at the first use and found in the cache afterwards.

    Decoding that was stopped goes on where it was. Processes that share the folder wait for the one that decodes.
    On a file system without locks each decodes into a file of its own, and all of them then write the same array.

    Args:
      split: the images.
      size: side of the squares in pixels.
      cache_dir: folder for the arrays; each file in it belongs to one split at one size.
      budget_gb: largest size of a share of the array (10^9 bytes).
      shares: equal parts that the array will be kept in, one on each device.
      workers: most processes that decode; few images take fewer of them.
      max_broken_share: largest share of the split's images that may be broken. The next readable image takes the
        place of each, and the log names it. For evaluation it should be 0.

    Raises:
      UserError: if the array passes the budget, the folder cannot be made or written or the disk has no room
        for it, or too many images are broken.
    """
    n = len(split)
    needed = n * size * size * 3
    if needed > budget_gb * GB * shares:
        on_each = f" on each of {shares} devices" if shares > 1 else ""
        raise UserError(
            f"data.memory_budget_gb {budget_gb}: {n} images of {size} x {size} pixels take "
            f"{needed / GB / shares:.2f} GB{on_each}; raise the budget if the memory is there, choose smaller "
            f"images, or stream them (data.store='stream')."
        )
    written = split.written() if hasattr(split, "written") else b""
    key = hashlib.sha256(split.identity() + written + str(size).encode()).hexdigest()[:16]
    folder = user_path(cache_dir, "data.cache_dir")
    path = folder / f"squares-{size}-{key}.npy"
    if not path.exists():
        make_folder(folder, "data.cache_dir")
        with locked(_lock(path)) as alone:
            if not path.exists():  # Another process may have made it meanwhile.
                part = path.with_suffix(".part" if alone else f".{platform.node()}-{os.getpid()}.part")
                _make(split, path, part, size, needed, workers, max_broken_share)
    BrokenImages(n, max_broken_share).report(_still_broken(split, path, size))
    return ArraySplit(np.load(path, mmap_mode="r"), _labels(path, split), split.class_names)


def _labels(path: pathlib.Path, split: EncodedSplit) -> np.ndarray:
    """The labels, kept beside the array at `path`, since records would all have to be read for them."""
    kept = path.with_suffix(".labels.npy")
    if not kept.exists():
        with written_at_once(kept) as temporary, open(temporary, "wb") as file:
            np.save(file, split.labels)
    return np.load(kept)


def _notes(path: pathlib.Path) -> pathlib.Path:
    """The file that lists the broken images of the array at `path`."""
    return path.with_suffix(".broken.json")


def _still_broken(split: EncodedSplit, path: pathlib.Path, size: int) -> list[Broken]:
    """The broken images of the array at `path`. Those that can be read by now are put into it first.

    A read error may have been a passing one, as of a network or of permissions.
    """
    noted = [Broken(*b) for b in json.loads(_notes(path).read_text(encoding="utf-8"))]
    if not any(_can_be_read(split, b.index) for b in noted):
        return noted
    found: set[Broken] = set()
    with locked(_lock(path)), contextlib.suppress(OSError):  # A cache that may not be written stays as it was.
        squares = np.lib.format.open_memmap(path, mode="r+")
        for index in {b.index for b in noted}:
            squares[index], passed_over = _square_or_next(split, index, size, 1.0)
            found.update(passed_over)
        squares.flush()
        write_json(_notes(path), sorted(found), indent=None)
        return sorted(found)
    return noted


def _can_be_read(split: EncodedSplit, i: int) -> bool:
    try:
        split.image(i)
    except BrokenImage:
        return False
    return True


def _lock(path: pathlib.Path) -> pathlib.Path:
    """The file that is locked by the process that writes the array at `path`."""
    return path.with_name(f"{path.name}.lock")


def _make(
    split: EncodedSplit,
    path: pathlib.Path,
    part: pathlib.Path,
    size: int,
    needed: int,
    workers: int,
    max_broken_share: float,
) -> None:
    """Decodes into the file `part`, which then becomes `path`."""
    progress = part.with_suffix(".progress.json")
    state = {"done": [], "broken": []}
    if part.exists() and progress.exists():
        state = json.loads(progress.read_text(encoding="utf-8"))
    else:
        part.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free
        has_room = needed <= free
        if has_room:
            shape = (len(split), size, size, 3)
            np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape).flush()
            has_room = _set_room_aside(part)
        if not has_room:
            part.unlink(missing_ok=True)
            raise UserError(
                f"{path.parent}: {len(split)} images of {size} x {size} pixels take {needed / GB:.2f} GB, and "
                f"there are {free / GB:.2f} GB free (a quota may allow less); make room or choose another cache "
                f"folder."
            )
        write_json(progress, state, indent=None)  # From here on the file counts as begun.
    chunks = [
        Chunk(split, str(part), size, start, min(start + CHUNK, len(split)), max_broken_share)
        for start in range(0, len(split), CHUNK)
        if start not in state["done"]
    ]
    try:
        for start, broken in in_processes(
            _decode_chunk,
            chunks,
            workers=workers,
            title=f"decoding to {size} px",
            images_in=lambda c: c.stop - c.start,
        ):
            state["done"].append(start)
            state["broken"] += [list(b) for b in broken]
            write_json(progress, state, indent=None)
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError(
            "data.num_workers: a process that decodes ended unasked, for want of memory or because the program "
            "that trains lacks `if __name__ == '__main__':`; set it to 1 to decode in the program's own process."
        ) from None
    write_json(_notes(path), sorted({tuple(b) for b in state["broken"]}), indent=None)
    _labels(path, split)
    part.replace(path)  # Last: whoever finds it finds the labels and notes too.
    with contextlib.suppress(FileNotFoundError):
        progress.unlink()


def _set_room_aside(path: pathlib.Path) -> bool:
    """Whether the disk has room for all of the file, which is then the file's.

    Without this, the file would take room only as it is written. On a disk that is full by then, a signal ends the
    processes that have mapped the file into memory, without a message.
    """
    if not hasattr(os, "posix_fallocate"):  # On Windows and macOS.
        return True
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:  # Other errors mean that this file system cannot do it.
            return error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return True


def _decode_chunk(chunk: Chunk) -> tuple[int, list[Broken]]:
    squares = np.lib.format.open_memmap(chunk.path, mode="r+")
    broken: list[Broken] = []
    for i in range(chunk.start, chunk.stop):
        squares[i], passed_over = _square_or_next(chunk.split, i, chunk.size, chunk.max_broken_share)
        broken += passed_over
    squares.flush()
    return chunk.start, broken


def _square_or_next(
    split: EncodedSplit, i: int, size: int, max_broken_share: float
) -> tuple[np.ndarray, list[Broken]]:
    def square(j: int) -> np.ndarray:
        return resize_and_center_crop(split.image(j), size, size)

    return read_or_next(split, i, square, max_broken_share=max_broken_share)
