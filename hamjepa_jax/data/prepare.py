"""Turns folders of images into a TFDS data set of ArrayRecord files, without TensorFlow.

  python -m hamjepa_jax.data.prepare IMAGES OUT [--size N]

The records hold the files' own bytes, or JPEGs whose shorter side is N pixels. The same command goes on where an
earlier one was stopped: finished files are kept. OUT then opens as "tfds:OUT", in the order of "folder:IMAGES", so
that the same seed gives the same batches.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import re
import sys

from PIL import Image

from hamjepa_jax.cli.parser import Parser, run_command
from hamjepa_jax.data.images.decode import BrokenImage, decode
from hamjepa_jax.data.pipeline.broken import Broken, listing
from hamjepa_jax.data.pipeline.parallel import in_processes
from hamjepa_jax.data.sources import open_source
from hamjepa_jax.data.sources.folder import FolderSplit
from hamjepa_jax.data.sources.tfds import MANIFEST_FILE
from hamjepa_jax.errors import UserError
from hamjepa_jax.files import make_folder, write_json, write_text

SHARD_BYTES = 256e6  # of original files in one record file
CHECKSUMS_FILE = "SHA256SUMS"  # as sha256sum -c reads it
BROKEN_FILE = "broken.txt"


@dataclasses.dataclass(frozen=True)
class Shard:
    """One record file to write: its images, of which `first` is the first one's position in the whole split."""

    directory: str
    name: str
    images: FolderSplit
    first: int
    size: int | None
    quality: int
    skip_broken: bool


def prepare(
    images: str | os.PathLike,
    out: str | os.PathLike,
    *,
    size: int | None = None,
    quality: int = 95,
    workers: int = 1,
    skip_broken: bool = False,
    shard_bytes: float = SHARD_BYTES,
) -> None:
    """Writes the data set.

    Args:
      images: folder as "folder:" takes it.
      out: folder of the data set, made if missing; a stopped run of the same settings is continued.
      size: shorter side in pixels to which larger images are reduced and encoded anew; None keeps the files' bytes.
      quality: of these JPEGs, 1 to 100.
      workers: processes.
      skip_broken: leaves out images that cannot be decoded (they are listed in OUT/broken.txt); otherwise they are
        an error.
      shard_bytes: of original files in one record file.

    Raises:
      UserError: for images that are not laid out so, broken images, numbers out of range, or an `out` that cannot
        be made or written, or has something else in it.
    """
    if size is not None and size < 1:
        raise UserError(f"--size {size}: expected pixels, at least 1.")
    if not 1 <= quality <= 100:
        raise UserError(f"--quality {quality}: expected 1 to 100.")
    source = open_source(f"folder:{os.fspath(images)}")
    name = re.sub(r"[^a-z0-9]+", "_", source.name.lower()).strip("_") or "images"
    if not name[0].isalpha():
        name = f"images_{name}"
    splits = {"train": source.train, "validation": source.test}
    settings = {
        "images": {split: part.identity().hex() for split, part in splits.items()},
        "size": size,
        "quality": quality if size else None,
        "shard_bytes": shard_bytes,
    }
    out = make_folder(out, "OUT")
    manifest = _manifest(out, settings)
    shards = {split: _cut(f"{name}-{split}", part, shard_bytes) for split, part in splits.items()}
    done, broken = manifest["files"], []
    missing = [
        Shard(str(out), shard, _part(splits[split], start, stop), start, size, quality, skip_broken)
        for split, cut in shards.items()
        for shard, start, stop in cut
        if shard not in done or not (out / shard).is_file()
    ]
    for shard, facts, failures in in_processes(
        _write_shard, missing, workers=workers, title=f"{source.name} → {out}", images_in=lambda s: len(s.images)
    ):
        broken += failures
        if facts is not None:
            done[shard] = facts
            write_json(out / MANIFEST_FILE, manifest)
    if broken:
        raise UserError(
            f"{listing(sorted(broken))}. Repair or remove the files and prepare into an empty folder, or leave "
            f"them out with --skip_broken."
        )
    _finish(out, name, splits, {split: [shard for shard, _, _ in cut] for split, cut in shards.items()}, manifest)


def _manifest(out: pathlib.Path, settings: dict) -> dict:
    path = out / MANIFEST_FILE
    if path.exists():
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["settings"] != settings:
            changed = [key for key, value in settings.items() if manifest["settings"].get(key) != value]
            raise UserError(
                f"{out} holds a data set made with other {' and '.join(changed)}; remove it or choose "
                f"another folder."
            )
        return manifest
    if any(out.iterdir()):
        raise UserError(f"{out} is not empty and holds no {MANIFEST_FILE}; choose an empty or a new folder.")
    manifest = {"settings": settings, "files": {}}
    write_json(path, manifest)
    return manifest


def _cut(prefix: str, split: FolderSplit, shard_bytes: float) -> list[tuple[str, int, int]]:
    """(file name, start, stop) of a split's files."""
    count = max(1, min(len(split), round(float(split.sizes.sum()) / shard_bytes)))
    edges = [len(split) * k // count for k in range(count + 1)]
    return [(f"{prefix}.array_record-{k:05d}-of-{count:05d}", edges[k], edges[k + 1]) for k in range(count)]


def _part(split: FolderSplit, start: int, stop: int) -> FolderSplit:
    """Images start … stop−1, small to send to a process."""
    part = slice(start, stop)
    return dataclasses.replace(split, paths=split.paths[part], sizes=split.sizes[part], labels=split.labels[part])


def _write_shard(shard: Shard) -> tuple[str, dict | None, list[Broken]]:
    """Writes one file under its name when it is whole; (name, facts about it, broken images)."""
    from array_record.python import array_record_module
    from tensorflow_datasets.core import example_serializer

    features = _features(shard.images.class_names)
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    path = pathlib.Path(shard.directory) / shard.name
    part = path.with_name(f"{path.name}.part")
    broken: list[Broken] = []
    count = size = 0
    # One record in a compressed group: records can then be read singly.
    writer = array_record_module.ArrayRecordWriter(str(part), "group_size:1")
    for i in range(len(shard.images)):
        try:
            data = _encoded(shard.images.encoded(i), shard.size, shard.quality)
        except BrokenImage as error:
            broken.append(Broken(shard.first + i, shard.images.where(i), str(error)))
            continue
        example = {
            "image": io.BytesIO(data),
            "label": int(shard.images.labels[i]),
            "image/filename": _as_utf8(shard.images.paths[i]),
        }
        record = serializer.serialize_example(features.encode_example(example))
        writer.write(record)
        count, size = count + 1, size + len(record)
    writer.close()
    if broken and not shard.skip_broken:
        part.unlink()
        return shard.name, None, broken
    with open(part, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    part.replace(path)
    facts = {"sha256": checksum, "examples": count, "bytes": size, "broken": [list(b) for b in broken]}
    return shard.name, facts, []


def _encoded(data: bytes, size: int | None, quality: int) -> bytes:
    image = decode(data)  # also where the bytes are kept: broken images are found now and not in training
    height, width = image.shape[:2]
    shorter = min(height, width)
    if size is None or shorter <= size:
        return data
    resized = Image.fromarray(image).resize(
        (size * width // shorter, size * height // shorter), Image.Resampling.BILINEAR
    )
    buffer = io.BytesIO()
    resized.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _as_utf8(path: str) -> str:
    """A path whose bytes may be in another encoding."""
    return os.fsencode(path).decode("utf-8", "replace")


def _features(class_names: tuple[str, ...]):
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=class_names),
            "image/filename": tfds.features.Text(),
        }
    )


def _finish(
    out: pathlib.Path, name: str, splits: dict[str, FolderSplit], shards: dict[str, list[str]], manifest: dict
) -> None:
    """Writes what makes a TFDS data set of the files, and their checksums."""
    import tensorflow_datasets as tfds

    files, infos, manifest["splits"] = manifest["files"], [], {}
    for split, part in splits.items():
        facts = [files[shard] for shard in shards[split]]
        template = tfds.core.ShardedFileTemplate(
            data_dir=out, dataset_name=name, split=split, filetype_suffix="array_record"
        )
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[f["examples"] for f in facts],
                num_bytes=sum(f["bytes"] for f in facts),
                filename_template=template,
            )
        )
        left_out = [b[0] for f in facts for b in f["broken"]]
        identity = part.identity()
        if manifest["settings"]["size"] or left_out:  # other images than the folder's
            facts_about_them = (identity, manifest["settings"]["size"], manifest["settings"]["quality"], left_out)
            identity = hashlib.sha256(repr(facts_about_them).encode()).digest()
        manifest["splits"][split] = {"identity": identity.hex()}
    tfds.folder_dataset.write_metadata(
        data_dir=out,
        features=_features(splits["train"].class_names),
        split_infos=infos,
        filename_template=tfds.core.ShardedFileTemplate(data_dir=out, dataset_name=name),
        check_data=False,  # the check would need TensorFlow
        disable_shuffling=True,  # the examples are in the folder's order
    )
    names = [shard for split in splits for shard in shards[split]]
    write_text(out / CHECKSUMS_FILE, "".join(f"{files[name]['sha256']}  {name}\n" for name in names))
    broken = [b for name in names for b in files[name]["broken"]]
    if broken:
        write_text(out / BROKEN_FILE, "".join(_as_utf8(f"{where}: {reason}\n") for _, where, reason in broken))
    write_json(out / MANIFEST_FILE, manifest)


def main(argv: list[str] | None = None) -> int:
    return run_command(_run, make_parser(), argv)


def make_parser() -> Parser:
    parser = Parser(
        prog="python -m hamjepa_jax.data.prepare", description="Folders of images to a TFDS ArrayRecord data set."
    )
    parser.add_path("images", metavar="IMAGES", help="folder with train/<class>/… and val/<class>/…")
    parser.add_path("out", metavar="OUT", help="folder of the data set; opens as data.source=tfds:OUT")
    parser.add_argument(
        "--size", type=int, metavar="N", help="shorter side to reduce images to; their bytes are kept if not given"
    )
    parser.add_argument("--quality", type=int, default=95, metavar="N", help="of the reduced JPEGs")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes")
    parser.add_argument("--skip_broken", action="store_true", help="leave out images that cannot be decoded")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    a = arguments
    prepare(a.images, a.out, size=a.size, quality=a.quality, workers=a.workers, skip_broken=a.skip_broken)
    print(f"{a.out}: use it with --config.data.source=tfds:{a.out}")


if __name__ == "__main__":
    # Under its own name, so that worker processes find the functions they are sent.
    from hamjepa_jax.data.prepare import main as _main

    sys.exit(_main())
