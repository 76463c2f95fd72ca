"""Worker processes of one-off work: none outlives the process that started it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from hamjepa_jax.data.pipeline.parallel import in_processes

SCRIPT = """
import os, time
from hamjepa_jax.data.pipeline.parallel import in_processes
def work(k):
    print(os.getpid(), flush=True)
    time.sleep(600)
if __name__ == "__main__":
    list(in_processes(work, [0, 1], workers=2, title="work", images_in=lambda k: 1))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_workers_end_with_a_killed_parent(tmp_path, number):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    run = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    workers = [int(run.stdout.readline()) for _ in range(2)]
    try:
        run.send_signal(number)
        run.wait(timeout=20)
        deadline = time.time() + 20
        while time.time() < deadline and any(map(_alive, workers)):
            time.sleep(0.1)
        assert not any(map(_alive, workers))
    finally:
        for pid in filter(_alive, workers):
            os.kill(pid, signal.SIGKILL)
        run.stdout.close()


def test_results_come_as_they_are_ready():
    assert sorted(in_processes(abs, [-1, -2], workers=2, title="work", images_in=lambda task: 1)) == [1, 2]


def _alive(pid):
    try:
        return "zombie" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
