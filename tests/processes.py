"""Runs of several local processes for the tests, one CPU device each, joined by flags."""

import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
# The last flag of a name counts.
ONE_DEVICE = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"


def start(count, workdir, *options, own=()):
    """Starts `count` processes of one run; `own[i]` are further options of process i."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"XLA_FLAGS": ONE_DEVICE}
    started = []
    for i in range(count):
        command = [
            sys.executable, "-m", "hamjepa_jax.main", "--config=tests/tiny.py", f"--workdir={workdir}",
            f"--coordinator=localhost:{port}", f"--num_processes={count}", f"--process_id={i}",
            *options, *(own[i] if own else ()),
        ]  # fmt: skip
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    return started


def finish(started, timeout=240):
    """[(exit status, output)] of every process; none is left behind."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in started]
        return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]
    finally:
        for process in started:
            process.kill()


def wait_for_checkpoint(workdir, step, started, timeout=240):
    """Returns once the checkpoint of `step` is complete, with the processes still running."""
    end = time.time() + timeout
    while not (workdir / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").exists():
        if time.time() > end or any(process.poll() is not None for process in started):
            raise AssertionError(f"no checkpoint of step {step}: {finish(started, timeout=10)}")
        time.sleep(0.1)
