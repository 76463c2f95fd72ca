"""Splits of files decoded once to squares of one size, kept in a cache folder and mapped into memory.

What is kept of an image is its central square, reduced (or enlarged) to size × size. So random crops are drawn from
that square and not from the whole image, of which a 4:3 photograph loses a quarter: the price of having all images
in one array that fits the devices (25 GB for ImageNet-100 at 256 pixels). Streaming crops the whole images.
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

from hamjepa_jax.data.images.decode import resize_and_center_crop
from hamjepa_jax.data.pipeline.broken import Broken, BrokenImages, read_or_next
from hamjepa_jax.data.pipeline.parallel import in_processes
from hamjepa_jax.data.split import ArraySplit, EncodedSplit
from hamjepa_jax.errors import UserError
from hamjepa_jax.files import locked, make_folder, user_path, write_json, written_at_once

GB = 1e9  # bytes
CHUNK = 2048  # images in a piece of work
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
    """The split as an array of squares, decoded at the first use and found in the cache from then on.

    A stopped run is continued where it was. Processes that share the folder wait for the one that decodes; on a
    file system without locks each decodes into a file of its own, and they put the same array in the same place.

    Args:
      split: the images.
      size: side of the squares in pixels.
      cache_dir: folder for the arrays; a file in it is for one split at one size.
      budget_gb: most that a share of the array may take (10^9 bytes).
      shares: equal parts that the array will be kept in, one on each device.
      workers: most processes that decode; few images take fewer of them.
      max_broken_share: most broken images to put up with, as a share of the split; the next readable image takes
        the place of each, which the log says. For evaluation it should be 0.

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
    key = hashlib.sha256(split.identity() + str(size).encode()).hexdigest()[:16]
    folder = user_path(cache_dir, "data.cache_dir")
    path = folder / f"squares-{size}-{key}.npy"
    if not path.exists():
        make_folder(folder, "data.cache_dir")
        with locked(folder / f"{path.name}.lock") as alone:
            if not path.exists():  # another process may have made it meanwhile
                part = path.with_suffix(".part" if alone else f".{platform.node()}-{os.getpid()}.part")
                _make(split, path, part, size, needed, workers, max_broken_share)
    broken = [Broken(*b) for b in json.loads(_notes(path).read_text())]
    BrokenImages(n, max_broken_share).report(broken)
    return ArraySplit(np.load(path, mmap_mode="r"), _labels(path, split), split.class_names)


def _labels(path: pathlib.Path, split: EncodedSplit) -> np.ndarray:
    """The labels, kept beside the array at `path`: for those of records all of the split would be read."""
    kept = path.with_suffix(".labels.npy")
    if not kept.exists():
        with written_at_once(kept) as temporary, open(temporary, "wb") as file:
            np.save(file, split.labels)
    return np.load(kept)


def _notes(path: pathlib.Path) -> pathlib.Path:
    """The file that lists the broken images of the array at `path`."""
    return path.with_suffix(".broken.json")


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
        state = json.loads(progress.read_text())
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
                f"there are {free / GB:.2f} GB free, if no quota allows less; make room or choose another cache "
                f"folder."
            )
        write_json(progress, state, indent=None)  # from here on the file counts as begun
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
    part.replace(path)  # last: where it is, everything is
    with contextlib.suppress(FileNotFoundError):
        progress.unlink()


def _set_room_aside(path: pathlib.Path) -> bool:
    """Whether the disk has room for all of the file, which is then the file's.

    A file that is only as long as its array takes room when it is written: a disk that is full by then ends, by a
    signal and without a word, the processes that have mapped it into memory.
    """
    if not hasattr(os, "posix_fallocate"):  # not on this system
        return True
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:  # of other numbers: not on this file system
            return error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return True


def _decode_chunk(chunk: Chunk) -> tuple[int, list[Broken]]:
    squares = np.lib.format.open_memmap(chunk.path, mode="r+")
    broken: list[Broken] = []
    for i in range(chunk.start, chunk.stop):
        squares[i], passed_over = read_or_next(
            chunk.split,
            i,
            lambda j: resize_and_center_crop(chunk.split.image(j), chunk.size, chunk.size),
            max_broken_share=chunk.max_broken_share,
        )
        broken += passed_over
    squares.flush()
    return chunk.start, broken
