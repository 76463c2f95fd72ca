"""Data sets as TFDS prepares them, read without TensorFlow: random access to the images' original bytes."""

import functools
import hashlib
import json
import os
import pathlib
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from hamjepa_jax.data.images.decode import BrokenImage, decode
from hamjepa_jax.data.sources.options import parted
from hamjepa_jax.data.sources.tfrecords import TFRecords
from hamjepa_jax.data.split import Source, SourceOptions, check_labels, source_error
from hamjepa_jax.parts import sources

INFO_FILE = "dataset_info.json"
MANIFEST_FILE = "manifest.json"  # of data.prepare
TEST_NAMES = ("validation", "val", "test")
DEFAULT_DATA_DIR = "~/tensorflow_datasets"


class RecordSplit:
    """Images in the ArrayRecord files of a TFDS split. Every process opens the files itself."""

    labels_checked = True

    def __init__(self, directory: str, split: str, image_key: str, label_key: str):
        self._directory, self._split = directory, split
        self._image_key, self._label_key = image_key, label_key
        self._lock = threading.Lock()
        info = _builder(directory).info
        self._length = info.splits[split].num_examples
        self.class_names = tuple(info.features[label_key].names)

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_records", "_features")}

    def __setstate__(self, state):
        self.__dict__ |= state | {"_lock": threading.Lock()}

    def __len__(self) -> int:
        return self._length

    @functools.cached_property
    def _records(self):
        return _builder(self._directory).as_data_source(self._split, decoders=self._decoders())

    def _decoders(self) -> dict:
        import tensorflow_datasets as tfds

        return {self._image_key: tfds.decode.SkipDecoding()}

    def _record(self, i: int) -> dict:
        with self._lock:  # only one thread opens the files
            records = self._records
        return records[i]

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """[n] int32. Every record is read for them, once.

        Raises:
          UserError: if a label is no position in class_names, as in a split without labels.
        """
        labels = np.asarray([self._record(i)[self._label_key] for i in range(len(self))], np.int32)
        check_labels(f"tfds:{self._directory}", self._split, labels, len(self), self.class_names)
        return labels

    def image(self, i: int) -> np.ndarray:
        return decode(self.encoded(i))

    def encoded(self, i: int) -> bytes:
        return self._image_of(self._record, i)

    def _image_of(self, record: Callable[[Any], dict], argument: Any) -> bytes:
        try:
            return record(argument)[self._image_key]
        except (OSError, RuntimeError, ValueError, KeyError, DecodeError) as error:
            raise BrokenImage(f"the record cannot be read ({error})") from error

    def where(self, i: int) -> str:
        return f"record {i} of {self._split} in {self._directory}"

    def identity(self) -> bytes:
        """The identity of the folder that it was prepared from, or a hash of TFDS's description of the split."""
        manifest = pathlib.Path(self._directory) / MANIFEST_FILE
        if manifest.exists():
            return bytes.fromhex(
                json.loads(manifest.read_text(encoding="utf-8"))["splits"][self._split]["identity"]
            )
        info = _builder(self._directory).info
        split = info.splits[self._split]
        facts = (info.full_name, self._split, split.shard_lengths, split.num_bytes, self.class_names)
        return hashlib.sha256(repr(facts).encode()).digest()

    def written(self) -> bytes:
        """A hash of the times at which the files were written: images of equal size in their place change it."""
        files = _builder(self._directory).info.splits[self._split].filepaths
        times = [os.stat(file).st_mtime_ns if os.path.exists(file) else 0 for file in files]
        return hashlib.sha256(repr(times).encode()).digest()


class TFRecordSplit(RecordSplit):
    """Images in the TFRecord files of a TFDS split."""

    @functools.cached_property
    def _features(self):
        return _builder(self._directory).info.features

    @functools.cached_property
    def _records(self) -> TFRecords:
        info = _builder(self._directory).info.splits[self._split]
        return TFRecords(info.filepaths, info.shard_lengths)

    @property
    def records(self) -> TFRecords:
        """The places of the records, found at the first use."""
        with self._lock:
            return self._records

    def _record(self, i: int) -> dict:
        return self._parse(self.records[i])

    def _parse(self, record: bytes) -> dict:
        return self._features.deserialize_example_np(record, decoders=self._decoders())

    def encoded_in(self, record: bytes) -> bytes:
        """The image of a record that has been read already, as `encoded` gives it."""
        return self._image_of(self._parse, record)


SPLITS = {"array_record": RecordSplit, "tfrecord": TFRecordSplit}


@sources.register(
    "tfds",
    form="tfds:NAME[/CONFIG][?data_dir=DIR&test=SPLIT] or tfds:DIR",
    meaning="a TFDS data set in ArrayRecord files, or in TFRecord files with data.loader='tfdata'",
)
def open_tfds(rest: str, options: SourceOptions) -> Source:
    """Opens "tfds:NAME", "tfds:NAME/CONFIG" or "tfds:DIR", each with "?data_dir=DIR&test=SPLIT" if wanted.

    NAME is looked for in DIR, else in $TFDS_DATA_DIR or ~/tensorflow_datasets, and the newest version is taken. The
    test split is SPLIT, else the one called validation, val or test, in this order. TFRecord files are for the
    loader "tfdata".

    Raises:
      UserError: if there is no such data set, or it has another form, no labelled images or no test split.
    """
    spec = f"tfds:{rest}"
    name, given = _parse(spec, rest)
    directory = _find(spec, name, given.get("data_dir"))
    try:
        info = _builder(str(directory)).info
    except Exception as error:  # whatever a damaged description makes TFDS raise
        raise source_error(spec, f"{directory} cannot be read as a TFDS data set ({error}).") from error
    file_format = getattr(info.file_format, "value", info.file_format)
    if file_format not in SPLITS or (file_format == "tfrecord" and options.loader != "tfdata"):
        instead = " or set data.loader='tfdata'" if file_format == "tfrecord" else ""
        raise source_error(
            spec,
            f"{directory} is prepared as {file_format}, which data.loader={options.loader!r} does not read; "
            f"prepare it with --file_format=array_record{instead}.",
        )
    image_key, label_key = _keys(spec, info.features)
    names = (given["test"],) if "test" in given else TEST_NAMES
    test = next((name for name in names if name in info.splits), None)
    if "train" not in info.splits or test is None:
        expected = f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]
        raise source_error(
            spec, f"{directory} has the splits {', '.join(info.splits)}; expected train and {expected}."
        )
    make = SPLITS[file_format]
    train, held_out = (make(str(directory), name, image_key, label_key) for name in ("train", test))
    return Source(name=info.name, train=train, test=held_out)


def _parse(spec: str, rest: str) -> tuple[str, dict[str, str]]:
    """The name, and the value of each option that is given."""
    name, options = parted(rest)
    for option in options:
        if option.name not in ("data_dir", "test") or not option.value:
            raise source_error(spec, f'unknown option "{option.text}"; expected data_dir=DIR or test=SPLIT.')
    return name, {option.name: option.value for option in options}


def _builder(directory: str):
    import tensorflow_datasets as tfds  # takes a second to import

    return tfds.builder_from_directory(directory)


def _find(spec: str, name: str, data_dir: str | None) -> pathlib.Path:
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR") or DEFAULT_DATA_DIR
    data_dir = pathlib.Path(os.path.expanduser(data_dir))
    for place in (pathlib.Path(os.path.expanduser(name)), data_dir / name):
        if name and (found := _newest(place)):
            return found
    raise source_error(
        spec,
        f"no {INFO_FILE} in {name or 'it'} or {data_dir / name}; give the folder of a prepared data set, or "
        f"prepare one: python -m hamjepa_jax.data.prepare IMAGES DIR, or tfds build NAME "
        f"--file_format=array_record.",
    )


def _newest(place: pathlib.Path) -> pathlib.Path | None:
    """The folder itself if it holds a data set, else its newest version."""
    if (place / INFO_FILE).exists():
        return place
    versions = [p.parent for p in place.glob(f"*/{INFO_FILE}") if re.fullmatch(r"\d+\.\d+\.\d+", p.parent.name)]
    return max(versions, key=lambda p: [int(x) for x in p.name.split(".")], default=None)


def _keys(spec: str, features) -> tuple[str, str]:
    """Names of the image and of the label among the features: the first of each type."""
    import tensorflow_datasets as tfds

    found = []
    for kind in (tfds.features.Image, tfds.features.ClassLabel):
        names = [name for name, feature in features.items() if isinstance(feature, kind)]
        if not names:
            raise source_error(spec, f"its features are {', '.join(features)}; none is of type {kind.__name__}.")
        found.append("label" if "label" in names else names[0])
    return found[0], found[1]
