"""Splits of files decoded once to squares of one size, kept in a cache folder and mapped into memory.

What is kept of an image is its central square, reduced (or enlarged) to size × size. So random crops are drawn from
that square and not from the whole image, of which a 4:3 photograph loses a quarter: the price of having all images
in one array that fits the devices (25 GB for ImageNet-100 at 256 pixels). Streaming crops the whole images.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import platform
import shutil

import numpy as np

from hamjepa_jax.data.decode import resize_and_center_crop
from hamjepa_jax.data.download import locked
from hamjepa_jax.data.parallel import in_processes
from hamjepa_jax.data.read import Broken, check_share, read_or_next
from hamjepa_jax.data.split import ArraySplit, EncodedSplit
from hamjepa_jax.errors import UserError

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
      workers: processes that decode.
      max_broken_share: most broken images to put up with, as a share of the split; the next readable image takes
        the place of each, which the log says. For evaluation it should be 0.

    Raises:
      UserError: if the array passes the budget or the disk has no room for it, or too many images are broken.
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
    folder = pathlib.Path(cache_dir).expanduser()
    path = folder / f"squares-{size}-{key}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with locked(folder / f"{path.name}.lock") as alone:
            if not path.exists():  # another process may have made it meanwhile
                part = path.with_suffix(".part" if alone else f".{platform.node()}-{os.getpid()}.part")
                _make(split, path, part, size, needed, workers, max_broken_share)
    broken = [Broken(*b) for b in json.loads(_notes(path).read_text())]
    for b in broken:
        log.warning("another image takes the place of %s: %s", b.where, b.reason)
    check_share(broken, n, max_broken_share)
    return ArraySplit(np.load(path, mmap_mode="r"), split.labels, split.class_names)


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
        free = shutil.disk_usage(path.parent).free
        if needed > free:
            raise UserError(
                f"{path.parent}: {len(split)} images of {size} x {size} pixels take {needed / GB:.2f} GB, and "
                f"there are {free / GB:.2f} GB free; make room or choose another cache folder."
            )
        shape = (len(split), size, size, 3)
        np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape).flush()
    chunks = [
        Chunk(split, str(part), size, start, min(start + CHUNK, len(split)), max_broken_share)
        for start in range(0, len(split), CHUNK)
        if start not in state["done"]
    ]
    for start, broken in in_processes(
        _decode_chunk, chunks, workers=workers, title=f"decoding to {size} px", images_in=lambda c: c.stop - c.start
    ):
        state["done"].append(start)
        state["broken"] += [list(b) for b in broken]
        _write_json(progress, state)
    _write_json(_notes(path), sorted({tuple(b) for b in state["broken"]}))
    part.replace(path)  # last: where it is, everything is
    with contextlib.suppress(FileNotFoundError):
        progress.unlink()


def _write_json(path: pathlib.Path, content: dict | list) -> None:
    """In one go, whoever reads or writes the file at the same time."""
    temporary = path.with_suffix(f".{platform.node()}-{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


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
