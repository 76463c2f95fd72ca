"""Folders prepared as TFDS ArrayRecord data sets: the same images, the same batches, and what is refused."""

import hashlib
import itertools
import json
import shutil
import sys

import jax
import numpy as np
import photos
import pytest
from numpy.testing import assert_array_equal
from streams import stream, take

from hamjepa_jax.data import open_source, prepare
from hamjepa_jax.data.images import decode
from hamjepa_jax.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photos.image_folder(tmp_path_factory.mktemp("a") / "My Photos (2)")


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    prepare.prepare(folder, out, shard_bytes=6000)  # several files a split
    return out


@pytest.mark.slow
def test_the_same_seed_gives_the_same_batches_from_a_folder_and_from_its_records(folder, prepared):
    a, b = open_source(f"folder:{folder}"), open_source(f"tfds:{prepared}")
    assert b.name == "my_photos_2" and a.fingerprint() == b.fingerprint()
    for x, y in ((a.train, b.train), (a.test, b.test)):
        assert len(x) == len(y) and x.class_names == y.class_names
        assert_array_equal(x.labels, y.labels)
        assert y.labels.dtype == np.int32
        assert all(x.encoded(i) == y.encoded(i) for i in range(len(x)))
    for x, y in zip(take(stream(a.train), 9), take(stream(b.train, num_workers=1, num_threads=1), 9), strict=True):
        jax.tree.map(assert_array_equal, x, y)


def test_it_is_a_tfds_data_set_with_checksums_made_without_tensorflow(prepared):
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(prepared).info
    assert info.splits["train"].num_examples == 24 and info.splits["validation"].num_examples == 9
    assert len(info.splits["train"].shard_lengths) > 1
    sums = [line.split("  ") for line in (prepared / prepare.CHECKSUMS_FILE).read_text().splitlines()]
    assert len(sums) == sum(len(s.shard_lengths) for s in info.splits.values())
    for checksum, name in sums:
        assert hashlib.sha256((prepared / name).read_bytes()).hexdigest() == checksum
    assert "tensorflow" not in sys.modules


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_keeps_what_it_had(folder, prepared, tmp_path, monkeypatch):
    write, calls = prepare._write_shard, itertools.count()

    def until_the_third(shard):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return write(shard)

    monkeypatch.setattr(prepare, "_write_shard", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(folder, tmp_path / "out", shard_bytes=6000)
    finished = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.array_record-*")}
    assert len(finished) == 2
    monkeypatch.setattr(prepare, "_write_shard", write)
    prepare.prepare(folder, tmp_path / "out", shard_bytes=6000, workers=2)
    assert {p: p.stat().st_mtime_ns for p in finished} == finished
    for name in ("dataset_info.json", "features.json"):
        assert (tmp_path / "out" / name).read_text() == (prepared / name).read_text()
    a, b = (open_source(f"tfds:{out}").train for out in (tmp_path / "out", prepared))
    assert all(a.encoded(i) == b.encoded(i) for i in range(24))
    assert not list((tmp_path / "out").glob("*.part"))


def test_images_are_reduced_to_a_shorter_side_and_never_enlarged(folder, tmp_path):
    prepare.prepare(folder, tmp_path / "out", size=36)
    a, b = open_source(f"folder:{folder}"), open_source(f"tfds:{tmp_path / 'out'}")
    assert a.fingerprint() != b.fingerprint()
    for i in range(len(a.train)):
        before, after = a.train.image(i), b.train.image(i)
        if min(before.shape[:2]) <= 36:
            assert a.train.encoded(i) == b.train.encoded(i)
        else:
            assert min(after.shape[:2]) == 36
            assert abs(before.mean() - after.mean()) < 2


def test_broken_images_are_refused_or_left_out_with_a_list(folder, tmp_path):
    root = shutil.copytree(folder, tmp_path / "photos")
    (root / "train/cat/cat_2.JPEG").write_bytes(b"text")
    with pytest.raises(UserError, match=r"1 broken image: .*cat_2.JPEG \(it is no JPEG.*--skip_broken"):
        prepare.prepare(root, tmp_path / "out")
    prepare.prepare(root, tmp_path / "out", skip_broken=True)
    source = open_source(f"tfds:{tmp_path / 'out'}")
    assert len(source.train) == 23 and len(source.test) == 9
    assert "cat_2.JPEG: it is no JPEG" in (tmp_path / "out" / prepare.BROKEN_FILE).read_text()
    assert source.fingerprint() != open_source(f"folder:{root}").fingerprint()


def test_folders_in_use_and_other_settings_are_refused(folder, prepared, tmp_path, capsys):
    with pytest.raises(UserError, match="made with other size and quality"):
        prepare.prepare(folder, prepared, size=20, shard_bytes=6000)
    photos.write(tmp_path / "full/thesis.tex", b"")
    assert prepare.main([str(folder), str(tmp_path / "full")]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert prepare.main([str(folder), str(tmp_path / "new"), "--workers", "1"]) == 0
    assert "data.source=tfds:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--size", "0"], "--size 0: expected pixels, at least 1"),
        (["--size", "-4"], "--size -4: expected pixels, at least 1"),
        (["--quality", "0"], "--quality 0: expected 1 to 100"),
        (["--quality", "101", "--size", "20"], "--quality 101: expected 1 to 100"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(folder, tmp_path, capsys, options, message):
    assert prepare.main([str(folder), str(tmp_path / "out"), *options]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


def test_a_place_that_holds_no_folder_is_refused(folder, tmp_path, capsys):
    file = photos.write(tmp_path / "file", b"")
    for out in (file, file / "below"):
        assert prepare.main([str(folder), str(out)]) == 2
        assert capsys.readouterr().err.startswith(f"error: OUT {out}: cannot be made (")


# -- tfds: ------------------------------------------------------------------------------------------------


def test_the_newest_version_under_a_name_is_found(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared, tmp_path / "photos/mini/1.9.0")
    shutil.copytree(prepared, tmp_path / "photos/mini/1.10.0")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert "1.10.0" in open_source("tfds:photos/mini").train.where(0)
    assert "1.9.0" in open_source(f"tfds:{tmp_path}/photos/mini/1.9.0").train.where(0)
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert len(open_source(f"tfds:photos/mini?data_dir={tmp_path}").train) == 24


@pytest.mark.parametrize(
    "change, message",
    [
        ({"fileFormat": "tfrecord"}, "is prepared as tfrecord, .*--file_format=array_record"),
        ({"splits": 1}, "has the splits train; expected train and validation, val or test"),
        ({"version": 7}, "cannot be read as a TFDS data set"),
    ],
)
def test_data_sets_of_another_form_are_refused(prepared, tmp_path, change, message):
    out = shutil.copytree(prepared, tmp_path / "out")
    info = json.loads((out / "dataset_info.json").read_text())
    if "splits" in change:
        change = {"splits": info["splits"][: change["splits"]]}
    (out / "dataset_info.json").write_text(json.dumps(info | change))
    with pytest.raises(UserError, match=message):
        open_source(f"tfds:{out}")


def test_what_is_not_there_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no dataset_info.json in nothing .*hamjepa_jax.data.prepare"):
        open_source(f"tfds:nothing?data_dir={tmp_path}")
    for option in ("split=a", "test=", "data_dir"):
        with pytest.raises(UserError, match=f'unknown option "{option}"'):
            open_source(f"tfds:x?{option}")


def test_the_test_split_can_be_named(prepared):
    """Some sets have a validation split and a test split, and numbers are told for the latter."""
    assert len(open_source(f"tfds:{prepared}?test=train").test) == len(open_source(f"tfds:{prepared}").train)
    with pytest.raises(UserError, match="has the splits train, validation; expected train and test"):
        open_source(f"tfds:{prepared}?test=test")


def test_a_damaged_record_is_a_broken_image(prepared, tmp_path):
    out = shutil.copytree(prepared, tmp_path / "out")
    file = sorted(out.glob("*train*"))[0]
    content = bytearray(file.read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start + 30 : start + 60] = bytes(30)
    file.write_bytes(content)
    train = open_source(f"tfds:{out}").train
    with pytest.raises(decode.BrokenImage):
        train.image(0)
    assert train.image(len(train) - 1).shape[2] == 3
