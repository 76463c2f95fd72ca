"""Workers while they start: a Ctrl-C in the middle of their imports is the training process's alone."""

import os
import signal
import subprocess
import sys

import photos
import pytest

# The worker imports this file under another name, and says that it does.
SCRIPT = """
import os, sys, time
if __name__ != "__main__":
    os.write(1, b"importing\\n")  # in one piece, beside the other worker's
    time.sleep(1)
import jax, streams
from hamjepa_jax.data import open_source, prefetch_to_device
from hamjepa_jax.data.pipeline.parallel import in_processes
def work(k):
    time.sleep(600)
if __name__ == "__main__":
    if sys.argv[2] == "pool":
        list(in_processes(work, [0, 1], workers=2, title="work", images_in=lambda k: 1))
    batches = streams.stream(open_source("folder:" + sys.argv[1]).train, num_workers=2, num_threads=1)
    for batch in prefetch_to_device(batches, jax.sharding.SingleDeviceSharding(jax.devices()[0])):
        pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "pool"])
def test_ctrl_c_while_workers_import_ends_in_one_exception(tmp_path, kind):
    root = photos.image_folder(tmp_path / "photos")
    script = photos.write(tmp_path / "run.py", SCRIPT.encode())
    run = subprocess.Popen(
        [sys.executable, str(script), str(root), kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, start_new_session=True,
    )  # fmt: skip
    try:
        assert [run.stdout.readline() for _ in range(2)] == ["importing\n"] * 2
        os.killpg(run.pid, signal.SIGINT)
        if kind == "pool":  # It waits for the work that has begun.
            os.killpg(run.pid, signal.SIGTERM)
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()
    assert errors.count("Traceback") == 1 - (kind == "pool"), errors
