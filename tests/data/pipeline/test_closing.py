"""What is left open at exit is closed in an order in which nothing waits for ever."""

import os
import subprocess
import sys

import photos
import pytest

SCRIPT = """
import sys
import jax, streams
from hamjepa_jax.data import open_source, prefetch_to_device
if __name__ == "__main__":
    split = open_source("folder:" + sys.argv[1]).train
    batches = streams.stream(split, num_workers=2, num_threads=1)
    batches = prefetch_to_device(batches, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    next(batches)
    if sys.argv[2] == "exception":
        raise RuntimeError("in the loop")
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending, status", [("end", 0), ("exception", 1)])
def test_a_stream_left_open_does_not_hold_the_program_up(tmp_path, ending, status):
    root = photos.image_folder(tmp_path / "photos")
    script = photos.write(tmp_path / "run.py", SCRIPT.encode())
    run = subprocess.run(
        [sys.executable, str(script), str(root), ending], capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert run.returncode == status, run.stderr
    assert run.stderr.count("Traceback") == status, run.stderr  # the program's own
    assert "leaked" not in run.stderr


ORDER = """
import atexit, sys
from hamjepa_jax.data.pipeline import closing
class Iterator:
    def __init__(self, name):
        self.close = lambda: print(name)
stream, prefetched, below = map(Iterator, ("stream", "prefetched", "below"))
closing.close_at_exit(stream)
closing.close_at_exit(prefetched)
closing.close_at_exit(below, used_by_others=True)  # as a generator does when it begins
gone = Iterator("gone")
closing.close_at_exit(gone)
del gone
import multiprocessing.util
multiprocessing.util.Finalize(None, print, args=("multiprocessing",), exitpriority=1)
"""


def test_the_latest_is_closed_first_then_what_others_use_then_multiprocessing_ends_its_workers():
    run = subprocess.run([sys.executable, "-c", ORDER], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == ["prefetched", "stream", "below", "multiprocessing"]
