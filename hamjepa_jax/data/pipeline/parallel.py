"""Long one-off work on a data set in several processes, with a progress bar on a terminal."""

import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import tqdm

from hamjepa_jax.data.pipeline.workers import source_plugins, start_worker, starting_workers

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
    """function(task) of every task, in the order in which the tasks are finished.

    Args:
      function: called in other processes. So it is importable by name, and tasks and results can be pickled.
      tasks: its arguments.
      workers: processes; 1 works in this one.
      title: of the progress bar, which counts images; there is none where standard error is no terminal.
      images_in: number of images of a task.
    """
    total = sum(map(images_in, tasks))
    with (
        tqdm.tqdm(total=total, desc=title, unit="image", disable=None if tasks else True) as bar,
        contextlib.ExitStack() as stack,
    ):
        if workers <= 1 or len(tasks) <= 1:
            for task in tasks:
                yield function(task)
                bar.update(images_in(task))
            return
        pool = concurrent.futures.ProcessPoolExecutor(
            min(workers, len(tasks)),
            multiprocessing.get_context("spawn"),
            initializer=start_worker,
            initargs=(source_plugins(),),
        )
        # However this ends, tasks that have not begun are dropped and the others are waited for: no process stays.
        stack.callback(pool.shutdown, cancel_futures=True)
        with starting_workers():
            futures = {pool.submit(function, task): task for task in tasks}
        for future in concurrent.futures.as_completed(futures):
            yield future.result()
            bar.update(images_in(futures[future]))
