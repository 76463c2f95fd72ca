"""Streams of crops: who gets which example, going on at any step, broken images, and what is left when they end."""

import collections
import itertools
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import photos
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from numpy.testing import assert_allclose, assert_array_equal
from streams import SPECS, assert_same, stream, take

from hamjepa_jax import data, rng
from hamjepa_jax.data import open_source
from hamjepa_jax.data.images import boxes, decode
from hamjepa_jax.data.pipeline import broken
from hamjepa_jax.data.pipeline.broken import BrokenImages
from hamjepa_jax.data.pipeline.stream import _watched, check_host_memory, host_memory
from hamjepa_jax.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """24 training images."""
    return open_source(f"folder:{photos.image_folder(tmp_path_factory.mktemp('photos'))}")


# -- Which examples ---------------------------------------------------------------------------------------


def test_a_batch_has_the_stated_shapes_and_the_order_of_the_device_store(source):
    batches = take(stream(source.train, first_step=3), 3)
    for step, batch in enumerate(batches, 3):
        assert batch["index"].dtype == np.int32
        assert_array_equal(batch["index"], data.batch_indices(5, step, n=24, batch_size=6))
        assert [x.shape for x in batch["crops"]] == [(6, 2, 16, 16, 3), (6, 3, 9, 9, 3)]
        assert all(x.dtype == np.uint8 for x in batch["crops"])


@pytest.mark.parametrize("process_count", [1, 2, 3])
def test_an_epoch_shows_every_example_once_over_all_processes(source, process_count):
    per_process = [
        take(stream(source.train, process_index=k, process_count=process_count), 8) for k in range(process_count)
    ]
    for epoch in (0, 1):
        seen = [i for part in per_process for b in part[4 * epoch : 4 * epoch + 4] for i in b["index"].tolist()]
        assert collections.Counter(seen) == dict.fromkeys(range(24), 1)
    # Put together, the parts are the batches of a single process: crops too.
    whole = take(stream(source.train), 8)
    joined = [jax.tree.map(lambda *x: np.concatenate(x), *parts) for parts in zip(*per_process, strict=True)]
    assert_same(joined, whole)


def test_a_stream_goes_on_at_any_step_with_any_number_of_threads(source):
    whole = take(stream(source.train, num_threads=0), 57)
    for first, threads in ((7, 3), (5, 1)):
        assert_same(
            take(stream(source.train, first_step=first, num_threads=threads), 50), whole[first : first + 50]
        )


@pytest.mark.slow
def test_worker_processes_change_nothing(source):
    whole = take(stream(source.train), 60)
    assert_same(take(stream(source.train, first_step=7, num_workers=3, num_threads=1), 50), whole[7:57])
    assert not _children()


def test_images_in_memory_stream_as_well():
    split = open_source("synthetic:40x20").train
    (batch,) = take(stream(split, first_step=2), 1)
    index = int(batch["index"][1])
    box = boxes.draw_box(5, 0, index, 1, height=20, width=20, scale=(0.4, 1.0), ratio=(3 / 4, 4 / 3))
    assert_array_equal(batch["crops"][0][1, 1], decode.crop_and_resize(split.images[index], box, 16))


def test_batches_that_cannot_be_filled_or_divided_are_refused_at_once(source):
    with pytest.raises(UserError, match=r"train.batch_size 25: data.source has 24 .* 1 to 24"):
        stream(source.train, batch_size=25)
    with pytest.raises(UserError, match=r"train.batch_size 8: not divisible by 3 processes; use 6"):
        stream(source.train, batch_size=8, process_count=3)


# -- Where the crops lie ------------------------------------------------------------------------------------


def test_boxes_are_a_function_of_seed_epoch_example_and_view():
    def box(*which, size=(300, 400)):
        return boxes.draw_box(*which, height=size[0], width=size[1], scale=(0.1, 0.9), ratio=(3 / 4, 4 / 3))

    assert box(1, 2, 3, 4) == box(1, 2, 3, 4)
    assert len({box(*w) for w in ((1, 2, 3, 4), (0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0))}) == 5


def test_boxes_have_the_distribution_of_those_on_the_device():
    n, height, width, scale, ratio = 4000, 90, 140, (0.3, 1.0), (3 / 4, 4 / 3)
    host = np.asarray(
        [boxes.draw_box(0, 0, i, 0, height=height, width=width, scale=scale, ratio=ratio) for i in range(n)]
    )
    keys = jax.random.split(jax.random.key(0), n)
    device = jax.jit(jax.vmap(lambda k: jnp.stack(data.sample_crop_box(k, height, width, scale, ratio))))(keys)
    top, left, h, w = host.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= height).all() and (left + w <= width).all()
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        # Four standard errors of a quantile of 4,000 draws, and a pixel of rounding.
        spread = 4 * (quantile * (1 - quantile) / n) ** 0.5 * 2.5 * host.std(axis=0) + 1
        found = np.quantile(host, quantile, axis=0) - np.quantile(np.asarray(device), quantile, axis=0)
        assert (np.abs(found) <= spread).all(), (quantile, found, spread)


@pytest.mark.parametrize("height, width, expected", [(1, 1, (0, 0, 1, 1)), (10, 20000, (0, 9993, 10, 13))])
def test_images_in_which_no_box_fits_get_a_centre_crop(height, width, expected):
    assert (
        boxes.draw_box(0, 0, 0, 0, height=height, width=width, scale=(0.4, 1.0), ratio=(3 / 4, 4 / 3)) == expected
    )


@pytest.mark.slow
def test_the_device_does_to_streamed_crops_what_it_does_to_its_own():
    """Given the device's own boxes, cropping on the host and the rest on the device make the same views."""
    images = np.stack([photos.picture(seed, 24, 30) for seed in range(2)])
    ids, specs = np.asarray([3, 11], np.int32), ((SPECS[0][0], 1), (SPECS[1][0], 1))
    settings = dict(seed=2, epoch=1, specs=specs, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    expected = jax.jit(lambda x, i: data.make_views(x, i, **settings))(images, ids)
    crops = []
    for number, (kind, _) in enumerate(specs):

        @jax.jit
        def crop(image, i, kind=kind, number=number):
            key = jax.random.fold_in(jax.random.fold_in(rng.stream(2, "views", 1), i), number)
            box = data.sample_crop_box(jax.random.split(key)[0], 24, 30, kind.scale, kind.ratio)
            return data.augment.resized_crop(image, box, kind.size)

        group = np.stack([np.round(np.asarray(crop(x, i)) * 255) for x, i in zip(images, ids, strict=True)])
        crops.append(group.astype(np.uint8)[:, None])
    streamed = jax.jit(lambda x, i: data.photometric_views(x, i, **settings))(tuple(crops), ids)
    for a, b in zip(streamed, expected, strict=True):
        assert_allclose(a, b, atol=1e-5)
    with pytest.raises(ValueError, match="photometric_views expects crops"):
        data.photometric_views(tuple(crops[:1]), ids, **settings)


# -- Broken images ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_broken_image_is_replaced_reported_once_and_counted(tmp_path, caplog):
    root = photos.image_folder(tmp_path)
    good = take(stream(open_source(f"folder:{root}").train), 8)
    for name in ("cat_3", "cat_4"):
        (root / f"train/cat/{name}.JPEG").write_bytes(b"")
    split = open_source(f"folder:{root}").train
    assert [split.where(i)[-10:] for i in (3, 4)] == ["cat_3.JPEG", "cat_4.JPEG"]
    for changes in (dict(num_threads=0), dict(num_workers=2, num_threads=1)):
        caplog.clear()
        replaced = take(stream(split, max_broken_share=0.1, **changes), 8)
        warnings = [r.getMessage() for r in caplog.records]
        assert len(warnings) == 2
        assert all("another image takes the place of" in w and "the file is empty" in w for w in warnings)
        for x, y in zip(replaced, good, strict=True):
            assert_array_equal(x["index"], y["index"])
            for row, i in enumerate(x["index"]):
                same = all((a[row] == b[row]).all() for a, b in zip(x["crops"], y["crops"], strict=True))
                assert same == (i not in (3, 4)), i
    for changes in (dict(max_broken_share=0.05), dict(max_broken_share=0.0), dict(num_workers=1)):
        with pytest.raises(UserError, match=r"data.max_broken_share 0.*cat_[34].JPEG \(the file is empty\)"):
            take(stream(split, **changes), 8)
    assert not _children()


def test_when_all_are_broken_the_search_ends():
    class Nothing:
        labels, class_names = np.zeros(4, np.int32), ("a",)
        __len__ = lambda self: 4  # noqa: E731
        where = lambda self, i: f"image {i}"  # noqa: E731

        def encoded(self, i):
            raise data.BrokenImage("gone")

    def gone(i):
        raise data.BrokenImage("gone")

    with pytest.raises(UserError, match=r"4 broken images: image 1 \(gone\), image 2"):
        broken.read_or_next(Nothing(), 1, gone, max_broken_share=0.75)
    with pytest.raises(UserError, match="4 broken images"):
        broken.read_or_next(Nothing(), 1, gone, max_broken_share=1.0)


# -- Memory, transfer, endings ------------------------------------------------------------------------------


def test_the_memory_estimate_counts_batches_in_flight():
    batch = 32 * (2 * 16**2 + 3 * 9**2) * 3
    in_threads = host_memory(SPECS, local_batch=32, num_threads=2, num_workers=0, in_flight=2)
    assert in_threads == pytest.approx(2 * 2 * batch + 2 * 20e6 + 3 * batch)
    assert host_memory(SPECS, local_batch=32, num_threads=2, num_workers=3, in_flight=2) > 3 * 500e6
    assert "GB" in check_host_memory(in_threads)
    with pytest.raises(UserError, match=r"data.num_threads, data.num_workers: .* about 1000000.0 GB of the host's"):
        check_host_memory(1e15)


@pytest.mark.parametrize("text, limited", [("3000000000\n", True), ("max\n", False), (f"{2**63 - 4096}\n", False)])
def test_memory_is_that_of_the_container_where_it_has_a_limit(tmp_path, monkeypatch, text, limited):
    file = photos.write(tmp_path / "memory.max", text.encode())
    monkeypatch.setattr("hamjepa_jax.data.pipeline.stream.MEMORY_LIMITS", (str(tmp_path / "absent"), str(file)))
    assert ("of the host's 3.0 GB" in check_host_memory(1e9)) == limited
    if limited:
        with pytest.raises(UserError, match=r"about 3.5 GB of the host's 3.0 GB"):
            check_host_memory(3.5e9)


def test_batches_arrive_on_the_devices_in_order_and_ahead():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    pulled, closed = [], []

    def batches():
        try:
            for k in itertools.count():
                pulled.append(k)
                yield {"index": np.full(16, k, np.int32), "crops": (np.full((16, 2, 3), k, np.uint8),)}
        finally:
            closed.append(True)

    moved = data.prefetch_to_device(batches(), sharding, size=2)
    for k in range(4):
        batch = next(moved)
        assert batch["index"].sharding.is_equivalent_to(sharding, 1) and batch["crops"][0].sharding.mesh == mesh
        assert int(batch["index"][0]) == int(batch["crops"][0][15, 1, 2]) == k
    deadline = time.time() + 5
    while len(pulled) < 7 and time.time() < deadline:
        time.sleep(0.01)
    assert len(pulled) == 7  # four used, two ready, one waiting for a place
    moved.close()
    assert closed == [True]


def test_an_error_in_the_pipeline_arrives_in_its_turn():
    def batches():
        yield np.zeros(2)
        raise UserError("no more")

    moved = data.prefetch_to_device(batches(), jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    assert next(moved).shape == (2,)
    with pytest.raises(UserError, match="no more"):
        next(moved)
    assert list(data.prefetch_to_device(iter([]), jax.sharding.SingleDeviceSharding(jax.devices()[0]))) == []


class Ended:
    """An iterator whose worker ended with some code."""

    def __init__(self, code):
        self.code, self.closed = code, False

    def __iter__(self):
        return self

    def __next__(self):
        raise RuntimeError(f"worker process 1 terminated unexpectedly with exit code {self.code}")

    def close(self):
        self.closed = True


@pytest.mark.parametrize(
    "code, error, message",
    [
        (-signal.SIGKILL, UserError, r"data.num_workers 2: .* SIGKILL, .* memory .* use fewer"),
        (-signal.SIGSEGV, RuntimeError, "unexpectedly"),
        (1, RuntimeError, "unexpectedly"),
    ],
)
def test_a_worker_s_end_by_want_of_memory_is_told_with_a_remedy(code, error, message):
    ended = Ended(code)
    with pytest.raises(error, match=message):
        next(_watched(ended, BrokenImages(10, 0.0), 2))
    assert ended.closed


@pytest.mark.slow
def test_a_killed_worker_ends_the_stream_with_a_remedy(source):
    batches = stream(source.train, num_workers=2, num_threads=1)
    next(batches)
    os.kill(_children()[0].pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"data.num_workers 2: .* SIGKILL, .* memory .* use fewer"):
        for _ in range(50):
            next(batches)
    assert not _children()


@pytest.mark.slow
def test_workers_leave_the_signals_of_a_scheduler_to_the_training_process(source):
    batches = stream(source.train, num_workers=2, num_threads=1)
    first = [next(batches) for _ in range(2)]  # one of each worker: both are ready
    for child in _children():
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGINT)
    assert_same(first + take(batches, 20), take(stream(source.train), 22))
    assert not _children()


def _children():
    import multiprocessing

    return multiprocessing.active_children()


SHARED_MEMORY = pathlib.Path("/dev/shm")
# In every process of the run: blocks of shared memory get names of their own, since other programs have some too.
NAMING = """
from multiprocessing import shared_memory
shared_memory._SHM_NAME_PREFIX = "/{prefix}"
"""
SCRIPT = """
import pathlib, sys, time
import jax, streams
from hamjepa_jax.data import open_source, prefetch_to_device
if __name__ == "__main__":
    batches = streams.stream(open_source("folder:" + sys.argv[1]).train, num_workers=2, num_threads=1)
    if sys.argv[2] == "SIGINT":
        batches = prefetch_to_device(batches, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    next(batches)
    import multiprocessing
    while pathlib.Path("/dev/shm").is_dir() and not list(pathlib.Path("/dev/shm").glob(sys.argv[3] + "*")):
        time.sleep(0.01)
    print(*[p.pid for p in multiprocessing.active_children()], flush=True)
    if sys.argv[2] == "exception":
        raise RuntimeError("in the loop")
    for batch in batches:
        time.sleep(0.05)
"""


SLOW = [pytest.param(ending, marks=pytest.mark.slow) for ending in ("exception", "SIGINT")]


@pytest.mark.parametrize("ending", [*SLOW, "SIGKILL"])
def test_no_process_and_no_shared_memory_outlives_the_run(tmp_path, ending):
    root = photos.image_folder(tmp_path / "photos")
    script = photos.write(tmp_path / "run.py", SCRIPT.encode())
    prefix = secrets.token_hex(3) + "_"
    naming = photos.write(tmp_path / "naming" / "sitecustomize.py", NAMING.format(prefix=prefix).encode())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(naming.parent), *sys.path])}
    run = subprocess.Popen(
        [sys.executable, str(script), str(root), ending, prefix], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment, start_new_session=True,
    )  # fmt: skip
    workers = [int(pid) for pid in run.stdout.readline().split()]
    assert len(workers) == 2, run.stderr.read()
    if ending == "SIGINT":
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does on Ctrl-C: to all processes of the group
    elif ending == "SIGKILL":
        run.kill()
    _, errors = run.communicate(timeout=60)
    assert run.returncode != 0
    if ending != "SIGKILL":
        assert errors.count("Traceback") == 1, errors  # the run's own, none of a worker
    deadline = time.time() + 20
    while time.time() < deadline and (any(map(_alive, workers)) or list(SHARED_MEMORY.glob(f"{prefix}*"))):
        time.sleep(0.1)
    assert not any(map(_alive, workers))
    assert not list(SHARED_MEMORY.glob(f"{prefix}*"))


def _alive(pid):
    try:
        return "zombie" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
