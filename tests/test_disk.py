"""A full or read-only disk: told at once and in one sentence, with nothing lost that was there."""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax.errors import UserError
from hamjepa_jax.training.checkpoint import Checkpoints
from hamjepa_jax.training.mesh import make_mesh, replicated
from hamjepa_jax.training.writer import MetricsWriter

ROOT = pathlib.Path(__file__).parent.parent


@contextlib.contextmanager
def files_up_to(size):
    """Within, the system refuses to write more than `size` bytes to a file: it fails as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def state_of(step):
    """Two megabytes of random numbers, which no compression makes smaller."""
    weights = np.random.default_rng(step).integers(0, 2**31, (1024, 512), np.int32)
    return jax.device_put({"weights": weights, "step": jnp.int32(step)}, replicated(make_mesh()))


def opened(path):
    return Checkpoints(path, keep_latest=2, keep_best=0, best_metric="none")


def like():
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_of(0))


def check_until_told(checkpoints):
    for _ in range(300):
        checkpoints.check()
        time.sleep(0.1)


def test_a_save_that_fails_is_told_without_waiting_for_the_next_one(tmp_path):
    checkpoints = opened(tmp_path)
    checkpoints.save(3, state_of(3), {})
    checkpoints.wait()
    with files_up_to(500_000):
        checkpoints.save(6, state_of(6), {})
        with pytest.raises(
            UserError, match=r"File too large.* free.*last good checkpoint is that of step 3"
        ) as told:
            check_until_told(checkpoints)
    assert str(told.value).startswith(f"{tmp_path / '6'}: ")
    checkpoints.close()
    again = opened(tmp_path)
    assert int(again.restore(like())["step"]) == 3
    again.save(6, state_of(6), {})
    again.close()
    assert opened(tmp_path).steps() == [3, 6]


def test_the_last_save_is_waited_for_and_told(tmp_path):
    checkpoints = opened(tmp_path)
    with files_up_to(500_000):
        checkpoints.save(3, state_of(3), {})
        with pytest.raises(UserError, match="there is no checkpoint yet"):
            checkpoints.wait()
    checkpoints.close()


def move(folder):
    folder.rename(folder.with_name("elsewhere"))


def put_a_file_there(folder):
    move(folder)
    folder.write_text("not checkpoints")


@pytest.mark.parametrize("fault", [move, shutil.rmtree, put_a_file_there])
@pytest.mark.parametrize("saved_before", [False, True])
def test_a_folder_that_is_gone_at_a_save_is_told_once_the_state_is_safe(tmp_path, fault, saved_before):
    folder = tmp_path / "run" / "checkpoints"
    checkpoints = opened(folder)
    if saved_before:
        checkpoints.save(3, state_of(3), {})
        checkpoints.wait()
    fault(folder)
    with pytest.raises(UserError, match=rf"^{folder}: was moved or deleted .*step 6 was saved in a new folder"):
        checkpoints.save(6, state_of(6), {})
    checkpoints.close()
    assert int(opened(folder).restore(like())["step"]) == 6


def test_a_workdir_that_is_moved_during_a_save_is_told_once_the_state_is_safe(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    checkpoints = opened(folder)
    checkpoints.save(3, state_of(3), {})
    move(folder.parent)  # While the save is under way, or just after it.
    try:
        checkpoints.settle(4, state_of(4))
    except UserError as error:
        saved = 4
        assert re.search("was moved or deleted .*step 4 was saved in a new folder", str(error))
    else:
        saved = 3  # It was written after the move, all of it in a folder that was made anew.
    checkpoints.close()
    assert opened(folder).steps() == [saved]
    assert int(opened(folder).restore(like())["step"]) == saved


def test_room_for_the_checkpoints_is_looked_for_at_the_start(tmp_path):
    checkpoints = opened(tmp_path)
    checkpoints.check_room(like())
    huge = {"weights": jax.ShapeDtypeStruct((10**6, 10**9), jnp.float32)}
    with pytest.raises(UserError, match=r"MB free, and 3 checkpoints of 4,000,000,000\.0 MB .*keep_latest"):
        checkpoints.check_room(huge)


def test_a_log_that_cannot_be_written_is_told(tmp_path):
    writer = MetricsWriter(tmp_path, first_step=0, trackers=("tensorboard",))
    with (
        files_up_to(3000),
        pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written \(File too large.*last checkpoint"),
    ):
        for step in range(1, 200):
            writer.write_scalars(step, {"train/total": 1 / 3})
    writer.close()
    assert 1 < step < 200
    MetricsWriter(tmp_path, first_step=step, trackers=("tensorboard",)).close()
    assert (tmp_path / "metrics.jsonl").read_text().count("}\n") in (step - 1, step)  # whole lines


# Runs in a mount namespace of its own, where the workdir is a small disk in memory.
SMALL_DISK = """
import pathlib, shutil, subprocess, sys, time
import tiny
from hamjepa_jax.errors import UserError
from hamjepa_jax.train import train

disk = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", disk], check=True)
config = tiny.get_config()
config.objective.name, config.predictor.kind = "lejepa", "identity"
config.evaluate.every, config.evaluate.probe.epochs, config.log.every = "", 0, "5 steps"

def fill(step, state, metrics):
    if step == 5:  # The checkpoint of step 3 is there; leave room for the log, and not for another checkpoint.
        while not (disk / "run" / "checkpoints" / "3").is_dir():
            time.sleep(0.1)
        filler.write_bytes(b"0" * (shutil.disk_usage(disk).free - 24_000))

filler = disk / "filler"
try:
    train(config, disk / "run", callbacks=[fill])
except UserError as error:
    print("full:", error)
print("there:", sorted(p.name for p in (disk / "run" / "checkpoints").iterdir() if p.name.isdigit()))
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
try:
    train(config, disk / "run")
except UserError as error:
    print("read-only:", error)
subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
filler.unlink()
print("done:", train(config, disk / "run")["step"])
"""


@pytest.mark.slow
def test_a_run_on_a_full_disk_ends_at_once_and_goes_on_when_there_is_room(tmp_path):
    namespace = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this system lets no user mount a disk")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", SMALL_DISK, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert "No space left on device" in said["full"] and "last good checkpoint is that of step 3" in said["full"]
    assert said["there"] == "['3']"
    assert "cannot be written (Read-only file system" in said["read-only"]
    assert said["done"] == "12"
