"""Squares of images: for evaluation, and decoded once into the cache."""

import concurrent.futures.process
import errno
import fcntl
import io
import itertools
import logging
import multiprocessing
import os
import tempfile
import time
import types

import numpy as np
import photos
import pytest
from numpy.testing import assert_array_equal

from hamjepa_jax.data import materialize, open_source, prepare
from hamjepa_jax.data.images import decode
from hamjepa_jax.data.pipeline import square_cache
from hamjepa_jax.data.sources import tfds
from hamjepa_jax.errors import UserError

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def root(tmp_path):
    return photos.image_folder(tmp_path / "photos")


def made(split, folder, **changes):
    defaults = dict(size=16, cache_dir=folder, budget_gb=1.0, shares=1, workers=1, max_broken_share=0.0)
    return materialize(split, **defaults | changes)


def test_squares_are_made_once_and_found_again(root, tmp_path, monkeypatch):
    split = open_source(f"folder:{root}").train
    stored = made(split, tmp_path / "cache", workers=2)
    assert stored.images.shape == (24, 16, 16, 3) and isinstance(stored.images, np.memmap)
    assert_array_equal(stored.labels, split.labels)
    for i in (0, 11, 23):
        assert_array_equal(stored.image(i), decode.resize_and_center_crop(split.image(i), 16, 16))
    monkeypatch.setattr(square_cache, "_make", None)  # would be called in vain
    assert_array_equal(made(split, tmp_path / "cache").images, stored.images)
    monkeypatch.undo()
    assert made(split, tmp_path / "cache", size=8).images.shape == (24, 8, 8, 3)
    (root / "train/cat/cat_0.JPEG").write_bytes(photos.encode(photos.picture(77)))
    changed = made(open_source(f"folder:{root}").train, tmp_path / "cache")
    assert (changed.images[0] != stored.images[0]).any()


def replaced_by_one_of_equal_size(path, seed):
    """Puts another picture into the file, filled up or cut to the same number of bytes."""
    before = path.stat()
    other = photos.encode(photos.picture(seed), quality=30)
    path.write_bytes(other.ljust(before.st_size, b"\0"))
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1000))  # A file system may tick slowly.


def test_an_image_replaced_by_one_of_equal_size_is_decoded_anew(root, tmp_path):
    before = open_source(f"folder:{root}")
    old = np.array(made(before.train, tmp_path / "cache").images)
    replaced_by_one_of_equal_size(root / "train/cat/cat_0.JPEG", 77)
    after = open_source(f"folder:{root}")
    assert after.fingerprint() == before.fingerprint()  # A run on it may go on.
    images = made(after.train, tmp_path / "cache").images
    assert_array_equal(images[0], decode.resize_and_center_crop(after.train.image(0), 16, 16))
    assert (images[0] != old[0]).any()
    assert_array_equal(images[1:], old[1:])


def test_records_prepared_anew_of_images_of_equal_size_are_decoded_anew(root, tmp_path):
    prepare.prepare(root, tmp_path / "first")
    old = np.array(made(open_source(f"tfds:{tmp_path / 'first'}").train, tmp_path / "cache").images)
    replaced_by_one_of_equal_size(root / "train/cat/cat_0.JPEG", 77)
    prepare.prepare(root, tmp_path / "second")
    images = made(open_source(f"tfds:{tmp_path / 'second'}").train, tmp_path / "cache").images
    assert (images[0] != old[0]).any()
    assert_array_equal(images[1:], old[1:])


def test_a_stopped_run_decodes_only_what_is_missing(root, tmp_path, monkeypatch):
    split = open_source(f"folder:{root}").train
    monkeypatch.setattr(square_cache, "CHUNK", 5)
    decode_chunk, calls = square_cache._decode_chunk, itertools.count()

    def until_the_third(chunk):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return decode_chunk(chunk)

    monkeypatch.setattr(square_cache, "_decode_chunk", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        made(split, tmp_path)
    assert not list(tmp_path.glob("*.npy"))
    assert made(split, tmp_path).images.shape == (24, 16, 16, 3)
    assert next(calls) == 6  # five pieces, and the attempt that was stopped
    expected = [decode.resize_and_center_crop(split.image(i), 16, 16) for i in range(24)]
    assert_array_equal(made(split, tmp_path).images, expected)
    assert sorted(p.suffix for p in tmp_path.glob("squares*")) == [".json", ".lock", ".npy", ".npy"]


def no_locks_here(file, operation):
    raise OSError(errno.ENOLCK, "No locks available")


def make_beside_another(root, folder, has_locks, barrier, results):
    """In a process of its own: makes the array at the same time as the others, slowly enough for them to meet."""
    decoded, seconds = [], 0.02

    def slowly(image, *sizes):
        decoded.append(time.sleep(seconds))
        return decode.resize_and_center_crop(image, *sizes)

    square_cache.resize_and_center_crop = slowly
    if not has_locks:
        fcntl.flock = no_locks_here  # as of a network file system without them
    messages = io.StringIO()
    logging.basicConfig(stream=messages, level=logging.INFO, force=True)
    split = open_source(f"folder:{root}").train
    barrier.wait()
    images = np.asarray(made(split, folder).images)
    barrier.wait()  # while the other still looks
    results.put((len(decoded), "waiting for another process" in messages.getvalue(), images))


@pytest.mark.slow
@pytest.mark.parametrize("has_locks", [True, False])
def test_two_processes_may_want_the_same_array_at_once(root, tmp_path, has_locks):
    spawn, folder = multiprocessing.get_context("spawn"), tmp_path / "cache"
    barrier, results = spawn.Barrier(2, timeout=60), spawn.Queue()
    both = [
        spawn.Process(target=make_beside_another, args=(root, folder, has_locks, barrier, results))
        for _ in range(2)
    ]
    for process in both:
        process.start()
    found = sorted((results.get(timeout=60) for _ in both), key=lambda r: r[0])
    for process in both:
        process.join()
    expected = [
        decode.resize_and_center_crop(open_source(f"folder:{root}").train.image(i), 16, 16) for i in range(24)
    ]
    for _, _, images in found:
        assert_array_equal(images, expected)
    # With locks one decodes all 24 images and the other waits and says so; without, each decodes for itself.
    assert [r[:2] for r in found] == ([(0, True), (24, False)] if has_locks else [(24, False), (24, False)])
    assert sorted(p.suffix for p in folder.glob("squares*")) == [".json", ".lock", ".npy", ".npy"]


def end_unasked(chunk):
    os._exit(1)


def test_a_broken_pool_of_processes_is_told_of(root, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise concurrent.futures.process.BrokenProcessPool

    monkeypatch.setattr(square_cache, "in_processes", broken)
    with pytest.raises(UserError, match=r"data.num_workers: a process that decodes ended .* set it to 1"):
        made(open_source(f"folder:{root}").train, tmp_path, workers=2)


@pytest.mark.slow
def test_processes_that_end_unasked_are_told_of(root, tmp_path, monkeypatch):
    monkeypatch.setattr(square_cache, "CHUNK", 20)
    monkeypatch.setattr(square_cache, "_decode_chunk", end_unasked)
    with pytest.raises(UserError, match=r"data.num_workers: a process that decodes ended .* set it to 1"):
        made(open_source(f"folder:{root}").train, tmp_path, workers=2)


def test_broken_images_are_replaced_up_to_a_share(root, tmp_path, caplog):
    (root / "train/cat/cat_5.JPEG").write_bytes(b"")
    split = open_source(f"folder:{root}").train
    with pytest.raises(UserError, match=r"data.max_broken_share 0.0: 1 broken image: .*cat_5.JPEG"):
        made(split, tmp_path)
    stored = made(split, tmp_path, max_broken_share=0.05)
    assert "another image takes the place of" in caplog.text
    assert_array_equal(stored.images[5], stored.images[6])
    with pytest.raises(UserError, match=r"cat_5.JPEG"):  # found in the cache, but still not for evaluation
        made(split, tmp_path)


def test_an_image_that_could_not_be_read_for_a_while_is_put_in_later(root, tmp_path, monkeypatch):
    split, real, folder = open_source(f"folder:{root}").train, open, tmp_path / "cache"
    gone = {"cat_5.JPEG", "cat_6.JPEG"}

    def failing(path, *args, **kwargs):
        if os.path.basename(str(path)) in gone:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", failing)
    stored = made(split, folder, max_broken_share=0.1)
    assert_array_equal(stored.images[5], stored.images[7])
    gone.remove("cat_6.JPEG")
    stored = made(split, folder, max_broken_share=0.1)
    six = decode.resize_and_center_crop(split.image(6), 16, 16)
    assert_array_equal(stored.images[6], six)
    assert_array_equal(stored.images[5], six)  # the next one that can be read
    with pytest.raises(UserError, match=r"1 broken image: .*cat_5.JPEG"):
        made(split, folder)
    gone.clear()
    stored = made(split, folder)
    assert_array_equal(stored.images[5], decode.resize_and_center_crop(split.image(5), 16, 16))


def test_more_than_the_budget_is_refused_with_an_estimate(root, tmp_path):
    split = open_source(f"folder:{root}").train
    with pytest.raises(UserError, match=r"24 images of 256 x 256 pixels take 0.00 GB; raise the budget"):
        made(split, tmp_path, size=256, budget_gb=0.004)
    with pytest.raises(UserError, match=r"take 0.00 GB on each of 2 devices; raise the budget"):
        made(split, tmp_path, size=256, budget_gb=0.002, shares=2)
    with pytest.raises(UserError, match=r"take 309.24 GB, and there are .* GB free"):
        made(
            split, tmp_path, size=65536, budget_gb=1000
        )  # 309 GB: no machine that runs tests has them in its temporary folder


def test_labels_are_read_from_the_records_at_the_first_start_only(root, tmp_path, monkeypatch):
    prepare.prepare(root, tmp_path / "records")
    read, reads = tfds.RecordSplit._record, []
    monkeypatch.setattr(tfds.RecordSplit, "_record", lambda self, i: reads.append(i) or read(self, i))
    first = made(open_source(f"tfds:{tmp_path / 'records'}").train, tmp_path / "cache")
    assert len(reads) == 2 * 24  # images, and labels
    reads.clear()
    second = made(open_source(f"tfds:{tmp_path / 'records'}").train, tmp_path / "cache")
    assert reads == []
    assert_array_equal(second.labels, first.labels)
    assert_array_equal(second.labels, open_source(f"folder:{root}").train.labels)


def test_a_cache_folder_that_cannot_be_made_or_written_is_refused(root, tmp_path, monkeypatch):
    split, file = open_source(f"folder:{root}").train, photos.write(tmp_path / "file", b"")
    for folder in (file, file / "below"):
        with pytest.raises(UserError, match=rf"data.cache_dir {folder}: cannot be made .*another folder"):
            made(split, folder)
    images = made(split, tmp_path / "cache").images

    def denied(**where):  # chmod would not stop the superuser
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    assert_array_equal(made(split, tmp_path / "cache").images, images)  # what is complete is only read
    with pytest.raises(UserError, match=r"data.cache_dir .*cache: cannot be written into .*; choose another"):
        made(split, tmp_path / "cache", size=8)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot set room on a disk aside")
def test_room_on_the_disk_is_set_aside_before_anything_is_decoded(root, tmp_path, monkeypatch):
    split = open_source(f"folder:{root}").train
    set_aside, asked = os.posix_fallocate, []

    def fills_up(file, start, size):
        asked.append(size)
        raise OSError(errno.ENOSPC, "No space left on device")

    def interrupted(chunk):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "posix_fallocate", fills_up)
    with pytest.raises(UserError, match=r"24 images of 16 x 16 pixels take 0.00 GB, and .*make room"):
        made(split, tmp_path)
    assert min(asked) >= 24 * 16 * 16 * 3
    assert not list(tmp_path.glob("*.part"))  # it would take the room
    monkeypatch.setattr(os, "posix_fallocate", set_aside)
    monkeypatch.setattr(square_cache, "_decode_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(split, tmp_path)
    (part,) = tmp_path.glob("*.part")
    assert part.stat().st_blocks * 512 >= 24 * 16 * 16 * 3
    monkeypatch.undo()
    # An array that was begun has its room; that the rest of the disk is full does not matter to it.
    monkeypatch.setattr(square_cache.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=0))
    assert made(split, tmp_path).images.shape == (24, 16, 16, 3)
