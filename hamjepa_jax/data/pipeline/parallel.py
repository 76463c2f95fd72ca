"""Long one-off work on a data set in several processes, with a progress bar."""

import concurrent.futures
import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import tqdm

from hamjepa_jax.data.pipeline.closing import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int,
    title: str,
    images_in: Callable[[Task], int],
) -> Iterator[Result]:
    """function(task) of every task, in the order in which they are finished.

    Args:
      function: importable by name, as other processes call it; likewise its arguments and results can be pickled.
      tasks: what to do.
      workers: processes; 1 works in this one.
      title: of the progress bar, which counts images.
      images_in: how many of them a task is about.
    """
    total = sum(map(images_in, tasks))
    with (
        tqdm.tqdm(total=total, desc=title, unit=" images", disable=not tasks) as bar,
        contextlib.ExitStack() as stack,
    ):
        if workers <= 1 or len(tasks) <= 1:
            for task in tasks:
                yield function(task)
                bar.update(images_in(task))
            return
        pool = concurrent.futures.ProcessPoolExecutor(
            min(workers, len(tasks)), multiprocessing.get_context("spawn"), initializer=_start_worker
        )
        # However this ends, what has not begun is dropped and what has is waited for: no process is left behind.
        stack.callback(pool.shutdown, cancel_futures=True)
        futures = {pool.submit(function, task): task for task in tasks}
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
            bar.update(images_in(futures[future]))


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    end_with_parent()
