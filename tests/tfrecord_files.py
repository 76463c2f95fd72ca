"""TFRecord forms of the data sets that data.prepare makes."""

import json
import pathlib
import shutil

from array_record.python import array_record_data_source


def records_of(path):
    with array_record_data_source.ArrayRecordDataSource([str(path)]) as records:
        return [records[i] for i in range(len(records))]


def write_tfrecord(path, records):
    """The format's frame with empty checksums: nothing here needs TensorFlow."""
    frames = (len(r).to_bytes(8, "little") + bytes(4) + r + bytes(4) for r in records)
    path.write_bytes(b"".join(frames))


def as_tfrecord(prepared: pathlib.Path, out: pathlib.Path, write=write_tfrecord) -> pathlib.Path:
    """The same records in the same order and number of files."""
    out.mkdir(parents=True)
    for path in prepared.iterdir():
        if ".array_record-" in path.name:
            write(out / path.name.replace("array_record", "tfrecord"), records_of(path))
        else:
            shutil.copy(path, out)
    info = json.loads((out / "dataset_info.json").read_text())
    (out / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    return out
