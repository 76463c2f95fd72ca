"""Your own images, or clips, as one NumPy file."""

import os
import tokenize
import zipfile
import zlib

import numpy as np

from hamjepa_jax.data.split import UNLABELLED, ArraySplit, ClipSplit, Source, SourceOptions, source_error
from hamjepa_jax.parts import sources

KEYS = ("train_images", "train_labels", "test_images", "test_labels", "class_names")
CLIP_KEYS = ("train_clips", "test_clips")
LABEL_KEYS = ("train_labels", "test_labels", "class_names")  # Clips may do without, and without the next.
STATE_KEYS = ("train_states", "test_states", "dt")


@sources.register("arrays", form="arrays:FILE.npz", meaning="images, or clips, of your own as one NumPy file")
def open_arrays(rest: str, options: SourceOptions) -> Source:
    """Opens "arrays:FILE.npz", as numpy.savez writes it.

    Keys: train_images and test_images [n, h, w, 3] uint8 (RGB), train_labels and test_labels [n] whole numbers
    from 0, class_names [classes] strings. Or, for clips: train_clips and test_clips [n, T, h, w, 3] uint8, whose T
    may differ; labels and class_names as above if the clips have classes; and, if they are known, train_states and
    test_states [n, T, 2d], the frames' positions and then momenta, and dt, the time from frame to frame.

    Raises:
      UserError: if the file is missing or not such a file.
    """
    del options  # Nothing is fetched.
    spec, path = f"arrays:{rest}", os.path.expanduser(rest)
    if not rest:
        raise source_error(spec, "expected arrays:FILE.npz.")
    if not os.path.isfile(path):
        raise source_error(spec, "there is no such file; expected one written by numpy.savez.")
    if not zipfile.is_zipfile(path):
        raise source_error(spec, "the file is not an .npz archive; write it with numpy.savez.")
    data = _read(spec, path)
    name = os.path.splitext(os.path.basename(path))[0]
    if CLIP_KEYS[0] in data:
        train, test = (_clip_split(spec, part, data) for part in ("train", "test"))
        if train.states is not None and train.states.shape[2] != test.states.shape[2]:
            shapes = f"{train.states.shape} and {test.states.shape}"
            raise source_error(spec, f"train_states and test_states must be of one system, got {shapes}.")
        return Source(name, train, test)
    class_names = _class_names(spec, data["class_names"])
    splits = [
        ArraySplit(
            _images(spec, f"{part}_images", data[f"{part}_images"]),
            _labels(spec, part, data[f"{part}_labels"], data[f"{part}_images"], class_names),
            class_names,
        )
        for part in ("train", "test")
    ]
    if splits[0].images.shape[1:] != splits[1].images.shape[1:]:
        shapes = " and ".join(str(s.images.shape[1:]) for s in splits)
        raise source_error(spec, f"training and test images must be of one size, got {shapes}.")
    counts = np.bincount(splits[0].labels, minlength=len(class_names))
    if not counts.all():
        empty = class_names[int(np.argmin(counts))]
        raise source_error(
            spec, f'class "{empty}" has no training image; leave it out of class_names and renumber the labels.'
        )
    return Source(name=name, train=splits[0], test=splits[1])


def _clip_split(spec: str, part: str, data: dict[str, np.ndarray]) -> ClipSplit:
    clips = _images(spec, f"{part}_clips", data[f"{part}_clips"], "uint8 [n, frames, height, width, 3]")
    train, test = (data[key].shape[2:] for key in CLIP_KEYS)
    if train != test:
        raise source_error(spec, f"frames of training and test clips must be of one size, got {train} and {test}.")
    class_names, labels = (), np.full(len(clips), UNLABELLED, np.int32)
    if "class_names" in data:
        class_names = _class_names(spec, data["class_names"])
        labels = _labels(spec, part, data[f"{part}_labels"], clips, class_names)
    states = data.get(f"{part}_states")
    dt = data.get("dt", np.asarray(1.0))
    if states is not None:
        _check_states(spec, f"{part}_states", states, clips)
    if dt.shape != () or dt.dtype.kind not in "fiu" or not 0 < dt < np.inf:
        raise source_error(spec, f"dt is {dt.dtype} {dt.shape} {dt}; expected one number above 0.")
    return ClipSplit(clips, labels, class_names, states=states, dt=float(dt))


def _check_states(spec: str, key: str, states: np.ndarray, clips: np.ndarray) -> None:
    expected = f"{clips.shape[0]}, {clips.shape[1]}"
    whole = (
        states.ndim == 3 and states.shape[:2] == clips.shape[:2] and states.shape[2] and states.shape[2] % 2 == 0
    )
    if not whole or states.dtype.kind != "f" or not np.isfinite(states).all():
        raise source_error(
            spec,
            f"{key} is {states.dtype} {states.shape}; expected finite floats [{expected}, 2d], positions and then "
            f"momenta of every frame.",
        )


def _read(spec: str, path: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            needed = CLIP_KEYS if CLIP_KEYS[0] in archive.files else KEYS
            if needed is CLIP_KEYS:  # All of these or none.
                for group in (LABEL_KEYS, STATE_KEYS[:2]):
                    needed += group * any(key in archive.files for key in group)
            missing = [key for key in needed if key not in archive.files]
            if missing:
                raise source_error(spec, f"the file lacks {', '.join(missing)}; expected {', '.join(needed)}.")
            read = needed + STATE_KEYS[2:] * (needed is not KEYS and STATE_KEYS[2] in archive.files)
            return {key: _read_array(spec, archive, key) for key in read}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise source_error(spec, f"the file is damaged ({error}); write it again.") from error


def _read_array(spec: str, archive, key: str) -> np.ndarray:
    try:
        array = archive[key]
    except MemoryError as error:
        raise source_error(spec, f"{key} does not fit into memory ({error}), or its header is damaged.") from None
    except (ValueError, tokenize.TokenError):
        # An array of objects is a pickle, which can run code when it is read: never allowed. Or a damaged header.
        array = None
    if not isinstance(array, np.ndarray):
        raise source_error(spec, f"{key} is no plain array of numbers or strings; write the file with numpy.savez.")
    return array


def _images(spec: str, key: str, images: np.ndarray, form: str = "uint8 [n, height, width, 3]") -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim != 1 + form.count(",") or images.shape[-1] != 3 or 0 in images.shape:
        raise source_error(spec, f"{key} is {images.dtype} {images.shape}; expected {form} with n > 0.")
    return images


def _labels(spec: str, part: str, labels: np.ndarray, images: np.ndarray, class_names) -> np.ndarray:
    key = f"{part}_labels"
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise source_error(spec, f"{key} is {labels.dtype} {labels.shape}; expected whole numbers [n].")
    if len(labels) != len(images):
        raise source_error(
            spec, f"{key} has {len(labels)} entries for {len(images)} images; expected one for each."
        )
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise source_error(
            spec,
            f"{key} runs from {labels.min()} to {labels.max()}, but class_names has {len(class_names)} names; "
            f"expected labels 0 ... {len(class_names) - 1}, or more names.",
        )
    return labels.astype(np.int32)


def _class_names(spec: str, names: np.ndarray) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind != "U" or len(set(names.tolist())) != len(names) or not len(names):
        raise source_error(
            spec, f"class_names is {names.dtype} {names.shape}; expected a list of different strings."
        )
    return tuple(names.tolist())
