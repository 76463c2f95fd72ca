"""Streams of tf.data: the batches of grain, from TFRecord files. They need TensorFlow (make test-extras)."""

import contextlib
import itertools
import pathlib
import shutil
import threading

import jax
import numpy as np
import photos
import pytest
from numpy.testing import assert_array_equal
from opened import open_inputs
from streams import SPECS, assert_same, stream, take
from tfrecord_files import as_tfrecord

from hamjepa_jax.data import open_source, prepare, tfdata_batches
from hamjepa_jax.errors import UserError
from hamjepa_jax.train import train
from hamjepa_jax.training.mesh import make_mesh

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed; make test-extras runs these")


def write_with_tensorflow(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The data set as ArrayRecord and as TFRecord files."""
    folder, out = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("out")
    prepare.prepare(photos.image_folder(folder), out / "array_record", shard_bytes=6000)
    return out / "array_record", as_tfrecord(out / "array_record", out / "tfrecord", write_with_tensorflow)


@pytest.fixture(scope="module")
def splits(both):
    return open_source(f"tfds:{both[0]}").train, open_source(f"tfds:{both[1]}", loader="tfdata").train


def streamed(split, **changes):
    defaults = dict(
        seed=5, first_step=0, batch_size=6, specs=SPECS, num_threads=2, process_index=0, process_count=1,
        max_broken_share=0.0,
    )  # fmt: skip
    return tfdata_batches(split, **defaults | changes)


def test_batches_are_those_of_grain(splits):
    of_grain, of_tfdata = take(stream(splits[0]), 10), take(streamed(splits[1]), 10)
    assert_same(of_tfdata, of_grain)
    for batch in of_tfdata:
        assert batch["index"].dtype == np.int32
        assert [x.shape for x in batch["crops"]] == [(6, 2, 16, 16, 3), (6, 3, 9, 9, 3)]
        assert all(x.dtype == np.uint8 for x in batch["crops"])


@pytest.mark.parametrize("first, threads", [(1, 1), (7, 3)])
def test_a_stream_goes_on_at_any_step_with_any_number_of_threads(splits, first, threads):
    whole = take(streamed(splits[1]), 30)
    assert_same(take(streamed(splits[1], first_step=first, num_threads=threads), 20), whole[first : first + 20])


def test_an_epoch_shows_every_example_once_over_all_processes(splits):
    parts = [take(streamed(splits[1], process_index=k, process_count=3), 4) for k in range(3)]
    assert sorted(np.concatenate([b["index"] for part in parts for b in part])) == list(range(24))
    joined = [jax.tree.map(lambda *x: np.concatenate(x), *same) for same in zip(*parts, strict=True)]
    assert_same(joined, take(streamed(splits[1]), 4))


def test_a_process_reads_the_records_of_its_own_part_only(splits, monkeypatch):
    read = []
    parse = type(splits[1])._parse
    monkeypatch.setattr(type(splits[1]), "_parse", lambda self, r: read.append(bytes(r)) or parse(self, r))
    (batch,) = take(streamed(splits[1], process_index=1, process_count=2, num_threads=1), 1)
    wanted = [splits[1].records[i] for i in batch["index"]]
    assert read[:3] == wanted  # what is read ahead comes after


def test_a_data_set_that_tfds_itself_wrote(tmp_path):
    import tensorflow_datasets as tfds

    images = [photos.encode(photos.picture(k)) for k in range(20)]

    class Pictures(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path  # a test module is no package that could hold metadata

        def _info(self):
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["even", "odd"])}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(range(14)), "test": self._generate_examples(range(14, 20))}

        def _generate_examples(self, rows):
            for k in rows:
                file = photos.write(tmp_path / f"{k}.jpg", images[k])
                yield k, {"image": str(file), "label": k % 2}

    builder = Pictures(data_dir=str(tmp_path / "data"), file_format="tfrecord")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    source = open_source(f"tfds:{builder.data_dir}", loader="tfdata")
    assert sorted(source.train.encoded(i) for i in range(14)) == sorted(images[:14])
    for split, name in ((source.train, "train"), (source.test, "test")):
        stored = list(tfds.as_numpy(builder.as_dataset(split=name, decoders={"image": tfds.decode.SkipDecoding()})))
        assert [split.encoded(i) for i in range(len(split))] == [x["image"] for x in stored]
        assert_array_equal(split.labels, [x["label"] for x in stored])
    assert_same(take(streamed(source.train), 5), take(stream(source.train), 5))


def test_a_broken_image_is_replaced_as_grain_replaces_it(both, tmp_path, caplog):
    prepared = prepare_with_a_broken_image(tmp_path)
    expected = take(stream(open_source(f"tfds:{prepared}").train, max_broken_share=0.1), 8)
    out = as_tfrecord(prepared, tmp_path / "tfrecord", write_with_tensorflow)
    split = open_source(f"tfds:{out}", loader="tfdata").train
    caplog.clear()
    assert_same(take(streamed(split, max_broken_share=0.1), 8), expected)
    assert [r.getMessage()[:50] for r in caplog.records] == ["another image takes the place of record 3 of train"]
    with pytest.raises(UserError, match=r"data.max_broken_share 0.0: 1 broken image: record 3 of train"):
        take(streamed(split), 8)


def prepare_with_a_broken_image(tmp_path):
    """A data set whose fourth training image was cut off after it had been prepared."""
    prepare.prepare(photos.image_folder(tmp_path / "photos"), tmp_path / "prepared", shard_bytes=1e9)
    (file,) = (tmp_path / "prepared").glob("*train.array_record*")
    from array_record.python import array_record_module
    from tfrecord_files import records_of

    records = records_of(file)
    records[3] = records[3].replace(b"\xff\xda", b"\x00\x00")  # the picture's own marker
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    return tmp_path / "prepared"


def test_a_record_that_its_checksum_finds_damaged_ends_the_stream(both, tmp_path):
    out = shutil.copytree(both[1], tmp_path / "out")
    split = open_source(f"tfds:{out}", loader="tfdata").train
    path, offset = split.records.paths[0], split.records.offsets[2]
    content = bytearray(pathlib.Path(path).read_bytes())
    content[offset + 500] ^= 1  # one bit of the picture: no decoder would notice
    pathlib.Path(path).write_bytes(content)
    with pytest.raises(UserError, match=rf"data.source: .*\(corrupted record at {offset + 12}\); prepare it again"):
        take(streamed(split, max_broken_share=0.1), 4)


def test_a_file_that_vanishes_ends_the_stream_with_its_name(both, tmp_path):
    out = shutil.copytree(both[1], tmp_path / "out")
    split = open_source(f"tfds:{out}", loader="tfdata").train
    batches = streamed(split, num_threads=1)
    next(batches)
    for file in out.glob("*train*"):
        file.unlink()
    with pytest.raises(UserError, match=r"data.source: .*train.tfrecord-0000.*No such file"):
        for _ in itertools.islice(batches, 20):
            pass


def test_leaving_a_stream_ends_its_threads_and_takes_no_accelerator(splits):
    before = threading.active_count()
    batches = streamed(splits[1], num_threads=3)
    next(batches)
    batches.close()
    assert list(batches) == []
    assert threading.active_count() <= before + 1
    assert not tf.config.get_visible_devices("GPU")


def test_other_sources_are_refused(splits):
    for split in (splits[0], open_source("synthetic:40x20").train):
        with pytest.raises(UserError, match=r"data.loader 'tfdata': .*TFRecord files; set data.loader='grain'"):
            streamed(split)
    with pytest.raises(UserError, match=r"train.batch_size 25: data.source has 24 .* 1 to 24"):
        streamed(splits[1], batch_size=25)


def configured(config, source, loader):
    config = config.copy_and_resolve_references()
    config.data.source, config.data.loader, config.data.store = f"tfds:{source}", loader, "stream"
    config.data.eval_resize, config.data.num_threads = 10, 2
    config.train.epochs, config.train.batch_size = 2, 8
    config.evaluate.ks, config.evaluate.every, config.evaluate.probe.epochs = (1, 5), "", 0
    return config


def test_the_views_on_the_devices_are_those_of_grain(both, tiny_config):
    found = []
    for source, loader in zip(both, ("grain", "tfdata"), strict=True):
        config = configured(tiny_config, source, loader)
        inputs = open_inputs(config, open_source(config.data.source, loader=loader).train, make_mesh())
        with contextlib.closing(inputs.batches(2)) as batches:
            found.append(jax.device_get(jax.jit(inputs.views)((), next(batches), 0)))
    assert_same(*found)


def test_a_run_goes_on_and_equals_one_that_grain_feeds(both, tiny_config, tmp_path):
    def stop(step, state, metrics):
        if step == 4:
            raise KeyboardInterrupt

    config = configured(tiny_config, both[1], "tfdata")
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", callbacks=[stop])
    result = train(config, tmp_path / "run")
    assert result["step"] == 6
    assert train(configured(tiny_config, both[0], "grain"), tmp_path / "grain") == result
