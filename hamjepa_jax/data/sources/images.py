"""Images without labels: every image below a folder, or those that a list file names; a share is held out."""

import logging
import os
import pathlib
import re

import numpy as np

from hamjepa_jax.data.sources.folder import EXTENSIONS, File, FolderSplit, passed_over, walk
from hamjepa_jax.data.sources.options import parted
from hamjepa_jax.data.split import UNLABELLED, Source, SourceOptions, source_error
from hamjepa_jax.parts import sources

FORM = "images:DIR|LIST[?held_out=SHARE&seed=S]"
HELD_OUT, SEED = 0.05, 0
LEAST_HELD_OUT = 2  # Images: the geometry of one says nothing.

log = logging.getLogger(__name__)


@sources.register(
    "images",
    form=FORM,
    meaning="JPEG, PNG and WebP files without labels: all below DIR, or those of LIST, a text file of paths",
)
def open_images(rest: str, options: SourceOptions) -> Source:
    """Opens "images:DIR" or "images:LIST", each with "?held_out=SHARE&seed=S" if wanted.

    Of a folder all images at any depth count; names that start with a dot are passed over, links are followed. In a
    list file, paths start from its own folder or from "~", and empty lines and those that start with "#" are passed
    over. The test split is the held-out share (0.05), drawn by the seed (0) of the source, so that runs of several
    seeds have the same images. Neither split has classes.

    Raises:
      UserError: if there is no such folder or file, or it names too few images, or an option is none.
    """
    del options  # Nothing is fetched.
    spec = f"images:{rest}"
    place, share, seed = _parse(spec, rest)
    path = pathlib.Path(os.path.expanduser(place))
    others: list[str] = []
    if place and path.is_dir():
        root, files = path, walk(spec, str(path), "", others)
        missing = f"no images ({', '.join(EXTENSIONS)}) in the folder; put some there"
    elif path.is_file():
        root, files = path.parent, _listed(spec, path)
        missing = "the list names no images; write one path a line"
    else:
        raise source_error(spec, "there is no such folder or list file; expected images:DIR or images:LIST.")
    held_out = max(LEAST_HELD_OUT, round(share * len(files)))
    if len(files) <= held_out:
        if files:
            missing = (
                f"{len(files)} image{'s' * (len(files) > 1)}, of which {held_out} would be held out; give more"
            )
        raise source_error(spec, f"{missing}.")
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(files))
    parts = [sorted(files[i] for i in rows) for rows in (order[held_out:], order[:held_out])]
    train, test = (_split(str(root), part) for part in parts)
    log.info(
        "%s: %d training and %d held-out images without labels%s", spec, len(train), len(test), passed_over(others)
    )
    return Source(name=path.resolve().stem, train=train, test=test)


def _parse(spec: str, rest: str) -> tuple[str, float, int]:
    """The place, the held-out share and the seed."""
    place, options = parted(rest)
    given = {"held_out": str(HELD_OUT), "seed": str(SEED)}
    for text, name, value in options:
        if name not in given or not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value):
            raise source_error(spec, f"{text!r} is no option; expected {FORM}, as in images:photos?held_out=0.1.")
        given[name] = value
    share, seed = float(given["held_out"]), given["seed"]
    if not 0 < share < 1 or "." in seed:
        raise source_error(spec, "held_out must be above 0 and below 1, and seed a whole number.")
    return place, share, int(seed)


def _listed(spec: str, path: pathlib.Path) -> list[File]:
    """The files that a list names; those that are missing are broken images, as others are, found when read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise source_error(spec, f"cannot be read ({error.strerror}).") from None
    names = dict.fromkeys(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    odd = [name for name in names if "\0" in name or not name.lower().endswith(EXTENSIONS)]
    if odd:
        raise source_error(
            spec, f"{odd[0]!r} in the list is no image; expected one path of {', '.join(EXTENSIONS)} a line."
        )
    return [_file(path.parent, os.path.expanduser(name)) for name in names]


def _file(root: pathlib.Path, name: str) -> File:
    try:
        found = os.stat(root / name)
    except OSError:
        return File(name, 0, 0)
    return File(name, found.st_size, found.st_mtime_ns)


def _split(root: str, files: list[File]) -> FolderSplit:
    paths, sizes, times = zip(*files, strict=True)
    labels = np.full(len(files), UNLABELLED, np.int32)
    return FolderSplit(root, paths, np.asarray(sizes, np.int64), np.asarray(times, np.int64), labels, ())
