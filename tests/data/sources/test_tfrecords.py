"""TFRecord files without TensorFlow: random access to their records, and what is refused."""

import pickle
import sys

import photos
import pytest
from numpy.testing import assert_array_equal
from tfrecord_files import as_tfrecord, write_tfrecord

from hamjepa_jax.data import BrokenImage, check_tfdata, eval_batches, open_source, prepare
from hamjepa_jax.data.sources.tfrecords import TFRecords
from hamjepa_jax.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder, out = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("out")
    prepare.prepare(photos.image_folder(folder), out, shard_bytes=6000)
    return out


@pytest.fixture
def tfrecord(prepared, tmp_path):
    return as_tfrecord(prepared, tmp_path / "tfrecord")


def test_records_of_several_files_are_found_by_position(tmp_path):
    contents = [[b"a" * 5, b"", b"ccc"], [b"dddddddd"]]
    for k, records in enumerate(contents):
        write_tfrecord(tmp_path / str(k), records)
    records = TFRecords([tmp_path / "0", tmp_path / "1"], [3, 1])
    assert [records[i] for i in range(len(records))] == [*contents[0], *contents[1]]
    assert_array_equal(records.files, [0, 0, 0, 1])


def test_both_formats_hold_the_same_data_set(prepared, tfrecord):
    a, b = open_source(f"tfds:{prepared}"), open_source(f"tfds:{tfrecord}", loader="tfdata")
    assert a.fingerprint() == b.fingerprint() and a.name == b.name
    for x, y in ((a.train, b.train), (a.test, b.test)):
        assert x.class_names == y.class_names
        assert_array_equal(x.labels, y.labels)
        assert [x.encoded(i) for i in range(len(x))] == [y.encoded(i) for i in range(len(y))]
    assert pickle.loads(pickle.dumps(b.train)).encoded(7) == b.train.encoded(7)  # worker processes get it so
    options = dict(resize=24, size=20, batch_size=9, num_threads=2)
    assert_array_equal(next(eval_batches(b.test, **options)), next(eval_batches(a.test, **options)))


def test_a_damaged_record_is_a_broken_image(tfrecord):
    file = sorted(tfrecord.glob("*train*"))[0]
    content = bytearray(file.read_bytes())
    content[12:32] = b"\xff" * 20  # of the first record
    file.write_bytes(content)
    train = open_source(f"tfds:{tfrecord}", loader="tfdata").train
    with pytest.raises(BrokenImage, match="the record cannot be read"):
        train.encoded(0)
    assert train.image(1).shape[2] == 3


@pytest.mark.parametrize("damage", ["cut", "grown", "gone"])
def test_files_that_are_not_whole_are_refused(tfrecord, damage):
    file = sorted(tfrecord.glob("*train*"))[1]
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-20] if damage == "cut" else content + content)
    train = open_source(f"tfds:{tfrecord}", loader="tfdata").train
    with pytest.raises(UserError, match=f"{file.name}.*prepare the data set again"):
        train.encoded(0)


def test_other_loaders_and_sources_are_refused_with_what_to_set(prepared, tfrecord, tmp_path, monkeypatch):
    with pytest.raises(
        UserError, match=r"prepared as tfrecord, .*'grain'.*array_record or set data.loader='tfdata'"
    ):
        open_source(f"tfds:{tfrecord}")
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as where it is not installed
    with pytest.raises(UserError, match=r"TensorFlow is not installed; run pip install 'hamjepa-jax\[tf\]'"):
        check_tfdata(open_source(f"tfds:{tfrecord}", loader="tfdata").train)
