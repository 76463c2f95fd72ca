"""Batches of crops that the host decodes while the device works, for data that do not fit the device.

The examples of a batch and the boxes of their crops depend on (seed, step) alone, and not on threads, worker
processes or the number of hosts. So a stream may start at any step.
"""

import collections
import contextlib
import functools
import os
import pathlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from hamjepa_jax.data.images.boxes import draw_box
from hamjepa_jax.data.images.decode import decode_crops
from hamjepa_jax.data.images.views import ViewSpec
from hamjepa_jax.data.pipeline.broken import Broken, BrokenImages, read_crops, read_or_next
from hamjepa_jax.data.pipeline.closing import close_at_exit
from hamjepa_jax.data.pipeline.order import check_batch_size, permutation
from hamjepa_jax.data.pipeline.workers import source_plugins, start_worker, starting_workers
from hamjepa_jax.data.split import Split
from hamjepa_jax.errors import UserError

Specs = tuple[tuple[ViewSpec, int], ...]
ENDLESS = 2**31 - 1  # Steps: grain wants to know a length.
WORKER_BUFFER = 1  # batches that a worker process has ready beyond those of its threads
PROCESS_BYTES = 500e6  # of an interpreter with its libraries
IMAGE_BYTES = 20e6  # a large photograph, decoded
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def stream_batches(
    split: Split,
    *,
    seed: int,
    first_step: int,
    batch_size: int,
    specs: Specs,
    num_threads: int,
    num_workers: int,
    process_index: int,
    process_count: int,
    max_broken_share: float,
) -> Iterator[dict[str, Any]]:
    """This process's part of the batches of steps first_step, first_step + 1, … without end.

    The order is that of `order.index_batches`; process k gets the k-th of process_count equal parts of each batch.
    The next image that can be decoded takes the place of a broken one, with the crops drawn for that one. So
    batches keep their size. The log names each broken image once. Closing or leaving the iterator ends its threads
    and worker processes.

    Args:
      split: the training images.
      seed: the run's seed.
      first_step: counted from 0.
      batch_size: of the global batch.
      specs: as in `make_views`.
      num_threads: of each worker; with 0 a batch is decoded when it is asked for.
      num_workers: processes that decode; with 0 threads of this process do.
      process_index: of this process among those that train together.
      process_count: their number.
      max_broken_share: largest share of the split's images that may be broken.

    Returns:
      An iterator over {"index": [b] int32 positions in the split, "crops": for each pair of `specs` an array
      [b, v, size, size, 3] uint8}, b = batch_size/process_count.

    Raises:
      UserError: if the batch cannot be filled or divided; while iterating, if too many images are broken or a
        worker process is killed.
    """
    batches = LocalBatches(split, seed, batch_size, specs, process_index, process_count, max_broken_share)
    dataset = grain.MapDataset.source(batches)[first_step:].to_iter_dataset(
        grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
    )
    if num_workers:
        if not flags.FLAGS.is_parsed():  # in a notebook or a test; grain reads its own flags when it starts workers
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=WORKER_BUFFER),
            worker_init_fn=functools.partial(_start_worker, plugins=source_plugins()),
        )
    watched = _watched(dataset, BrokenImages(len(split), max_broken_share), num_workers)
    close_at_exit(watched)
    return watched


def _watched(dataset: grain.IterDataset, broken_images: BrokenImages, num_workers: int) -> Iterator[dict[str, Any]]:
    """Iterates, reports broken images and closes what it opened."""
    iterator = iter(dataset)
    close_at_exit(iterator, used_by_others=True)  # It begins last, in the thread that asks for a batch.
    try:
        start = starting_workers() if num_workers else contextlib.nullcontext()
        while True:
            with start:
                batch = next(iterator)  # The first one starts the workers.
            start = contextlib.nullcontext()
            broken_images.report(batch.pop("broken"))
            # Worker processes hand over shared memory, which would last as long as the batch is held.
            batch = jax.tree.map(_own, batch)
            yield batch
    except RuntimeError as error:
        killed = re.search(r"terminated unexpectedly with exit code -(\d+)", str(error))
        if killed is None or int(killed[1]) not in (signal.SIGKILL, signal.SIGBUS):
            raise
        raise UserError(
            f"data.num_workers {num_workers}: a worker process was ended by {signal.Signals(int(killed[1])).name}, "
            "most likely because the memory (or the shared memory in /dev/shm) is full; use fewer of them, fewer "
            "data.num_threads or a smaller batch, or give the run more memory."
        ) from None
    finally:
        iterator.close()


def _own(array: np.ndarray) -> np.ndarray:
    return array if type(array) is np.ndarray else np.array(array)


class LocalBatches:
    """Random access by step to one process's part of every batch.

    Attributes:
      size: examples in a part.
    """

    def __init__(self, split, seed, batch_size, specs, process_index, process_count, max_broken_share):
        """Arguments and refusals are those of `stream_batches`."""
        check_batch_size(batch_size, len(split))
        if batch_size % process_count:
            raise UserError(
                f"train.batch_size {batch_size}: not divisible by {process_count} processes; "
                f"use {max(1, batch_size // process_count) * process_count}."
            )
        self._split, self._seed, self._specs = split, seed, specs
        self._batch_size, self.size = batch_size, batch_size // process_count
        self._first = process_index * self.size
        self._max_broken_share = max_broken_share
        self._orders: collections.OrderedDict[int, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self):  # For worker processes, which make their own lock.
        return self.__dict__ | {"_lock": None, "_orders": collections.OrderedDict()}

    def __setstate__(self, state):
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def __repr__(self) -> str:
        return f"batches of {self.size} crops"  # grain puts it into its own messages

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, step: int) -> dict[str, Any]:
        epoch, index = self.index(int(step))
        crops = tuple(
            np.empty((len(index), count, spec.size, spec.size, 3), np.uint8) for spec, count in self._specs
        )
        broken: list[tuple] = []
        for row, example in enumerate(index.tolist()):
            views, passed_over = self.views(epoch, example)
            broken += map(tuple, passed_over)
            views = iter(views)
            for group in crops:
                for number in range(group.shape[1]):
                    group[row, number] = next(views)
        return {"index": index, "crops": crops, "broken": broken}

    def index(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch of a step, and the examples [size] int32 of this process's part of its batch."""
        epoch, position = divmod(step, len(self._split) // self._batch_size)
        start = position * self._batch_size + self._first
        return epoch, self._order(epoch)[start : start + self.size]

    def views(
        self, epoch: int, example: int, encoded: Callable[[], bytes] | None = None
    ) -> tuple[list[np.ndarray], list[Broken]]:
        """The crops of an example one after the other, and the broken images that they stand in for.

        `encoded` gives the example's image where it has been read already.
        """

        def draw(height, width):
            specs = [spec for spec, count in self._specs for _ in range(count)]
            return [
                (
                    draw_box(
                        self._seed, epoch, example, number,
                        height=height, width=width, scale=spec.scale, ratio=spec.ratio,
                    ),
                    spec.size,
                )
                for number, spec in enumerate(specs)
            ]  # fmt: skip

        def read(i):
            if i == example and encoded is not None:
                return decode_crops(encoded(), draw)
            return read_crops(self._split, i, draw)

        return read_or_next(self._split, example, read, max_broken_share=self._max_broken_share)

    def _order(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._orders:
                self._orders[epoch] = permutation(self._seed, epoch, len(self._split))
                if len(self._orders) > 2:  # Between two epochs, threads work on both.
                    self._orders.popitem(last=False)
            return self._orders[epoch]


def _start_worker(index: int, count: int, *, plugins: tuple[str, ...]) -> None:
    """In a new worker process: no accelerator, no share in signals, and no life without the training process."""
    del index, count
    jax.config.update("jax_platforms", "cpu")  # A second process must not claim the accelerator's memory.
    # Ctrl-C and a scheduler's SIGTERM come to all processes; the training process saves first, then closes these.
    start_worker(plugins, ignored=(signal.SIGINT, signal.SIGTERM))


# -- Memory -------------------------------------------------------------------------------------------------


def host_memory(specs: Specs, *, local_batch: int, num_threads: int, num_workers: int, in_flight: int) -> float:
    """About how many bytes of host memory a stream takes, beyond the split itself.

    Args:
      specs: as in `make_views`.
      local_batch: examples of a batch in this process.
      num_threads, num_workers: as in `stream_batches`.
      in_flight: batches on their way to the device.
    """
    batch = local_batch * sum(count * spec.size**2 * 3 for spec, count in specs)
    threads, workers = max(1, num_threads), max(1, num_workers)
    # A thread holds the batch it fills and a finished one; a worker's finished batches lie in shared memory.
    each = 2 * threads * batch + threads * IMAGE_BYTES
    if num_workers:
        each += (WORKER_BUFFER + 1) * batch + PROCESS_BYTES
    return workers * each + (in_flight + 1) * batch


def check_host_memory(needed: float) -> str:
    """A line for the log: "about 1.2 of the host's 64.0 GB".

    Raises:
      UserError: if the host, or the container this runs in, has less memory than that.
    """
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on this system
        return f"about {needed / 1e9:.1f} GB of host memory"
    for path in map(pathlib.Path, MEMORY_LIMITS):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
            there = min(there, int(path.read_text()))
    if needed > there:
        raise UserError(
            f"data.num_threads, data.num_workers: the input pipeline would take about {needed / 1e9:.1f} GB of the "
            f"host's {there / 1e9:.1f} GB; use fewer of them, or a smaller batch."
        )
    return f"about {needed / 1e9:.1f} of the host's {there / 1e9:.1f} GB of memory"
