"""Your own clips as folders of frames, read into memory when they are opened."""

import os
import pathlib
import re

import numpy as np

from hamjepa_jax.data.images.decode import BrokenImage, decode
from hamjepa_jax.data.sources.folder import EXTENSIONS
from hamjepa_jax.data.split import UNLABELLED, ClipSplit, Source, SourceOptions, source_error
from hamjepa_jax.parts import sources

FORM = "clips:DIR"
PARTS = ("train", "test")


@sources.register("clips", form=FORM, meaning="clips of your own: train/CLIP and test/CLIP hold the frames of one")
def open_clips(rest: str, options: SourceOptions) -> Source:
    """Opens "clips:DIR": DIR/train and DIR/test have a folder for each clip, with its frames as JPEG, PNG or WebP.

    Frames come in the order of their names, numbers in them by value (frame2 before frame10); names that start with
    a dot are passed over. All frames have one size, all clips of a part one length. There are no classes.

    Raises:
      UserError: if a folder is missing or empty, a frame is broken or of another size, or a clip of another length.
    """
    del options  # Nothing is fetched.
    spec, root = f"clips:{rest}", pathlib.Path(os.path.expanduser(rest))
    for part in PARTS:
        if not rest or not (root / part).is_dir():
            raise source_error(spec, f"there is no folder {part} in it; expected train/CLIP and test/CLIP.")
    clips = {part: _part(spec, root / part) for part in PARTS}
    train, test = (clips[part].shape[2:] for part in PARTS)
    if train != test:
        raise source_error(spec, f"frames of training and test clips must be of one size, got {train} and {test}.")
    splits = (ClipSplit(x, np.full(len(x), UNLABELLED, np.int32), ()) for x in clips.values())
    return Source(root.resolve().name, *splits)


def _part(spec: str, folder: pathlib.Path) -> np.ndarray:
    """[n, T, h, w, 3] uint8."""
    clips = [_clip(spec, path) for path in _entries(folder) if path.is_dir()]
    if not clips:
        raise source_error(spec, f"{folder.name} has no clips; expected a folder of frames for each.")
    for path, clip in clips:
        if clip.shape != clips[0][1].shape:
            shapes = " and ".join(f"{x.shape[0]} frames of {x.shape[2]}×{x.shape[1]}" for x in (clip, clips[0][1]))
            raise source_error(
                spec, f"{path} and {clips[0][0]} have {shapes} pixels; cut the clips of {folder.name} to one form."
            )
    return np.stack([clip for _, clip in clips])


def _clip(spec: str, folder: pathlib.Path) -> tuple[pathlib.Path, np.ndarray]:
    frames = []
    for path in _entries(folder):
        if not path.name.lower().endswith(EXTENSIONS):
            continue
        try:
            frames.append(decode(path.read_bytes()))
        except (BrokenImage, OSError) as error:
            raise source_error(spec, f"{path} cannot be read ({error}); repair it or remove its clip.") from None
        if frames[-1].shape != frames[0].shape:
            (h, w, _), (height, width, _) = frames[-1].shape, frames[0].shape
            raise source_error(spec, f"{path} has {w}×{h} pixels, the first frame of its clip {width}×{height}.")
    if not frames:
        raise source_error(spec, f"{folder} has no frames ({', '.join(EXTENSIONS)}); put some there, or remove it.")
    return folder, np.stack(frames)


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
    """What is in a folder, in the order of names with numbers by value."""

    def order(path: pathlib.Path) -> list:
        return [(int(x), "") if x.isdigit() else (-1, x) for x in re.split(r"([0-9]+)", path.name)]

    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=order)
