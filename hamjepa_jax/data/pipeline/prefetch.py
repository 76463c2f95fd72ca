"""Moving batches to the devices while earlier ones are being used."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import jax

from hamjepa_jax.data.pipeline.closing import close_at_exit


def prefetch_to_device(batches: Iterator[Any], sharding: Any, *, size: int = 2) -> Iterator[Any]:
    """The same batches as arrays on the devices, `size` of them ahead of the one in use.

    A thread takes them from `batches` and starts their transfer. Its exceptions are raised here, in their turn.
    Closing (or leaving) the iterator stops the thread and closes `batches`.

    Args:
      batches: trees of NumPy arrays, each the part of a global array that belongs to this process.
      sharding: of all arrays, or a tree of shardings like the batches.
      size: batches to hold ready on the devices, at least 1.
    """
    ready: queue.Queue = queue.Queue(maxsize=size)
    stop = threading.Event()

    def put(item: tuple) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                pass

    def to_device(batch: Any) -> Any:
        tree = sharding
        if isinstance(sharding, jax.sharding.Sharding):
            tree = jax.tree.map(lambda _: sharding, batch)
        return jax.tree.map(lambda x, s: jax.make_array_from_process_local_data(s, x), batch, tree)

    def work() -> None:
        try:
            for batch in batches:
                if stop.is_set():
                    return
                put((to_device(batch), None))
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    def take() -> Iterator[Any]:
        thread = threading.Thread(target=work, name="prefetch_to_device", daemon=True)
        thread.start()
        try:
            while True:
                batch, error = ready.get()
                if isinstance(error, StopIteration):
                    return
                if error is not None:
                    raise error
                yield batch
        finally:
            stop.set()
            thread.join()
            if hasattr(batches, "close"):
                batches.close()

    taken = take()
    close_at_exit(taken)
    return taken
