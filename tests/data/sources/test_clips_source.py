"""Clips as folders of frames."""

import numpy as np
import pytest
from PIL import Image

from hamjepa_jax.data import open_source
from hamjepa_jax.errors import UserError


def write(folder, levels, size=(6, 5), name="frame{}.png"):
    """A clip whose frames are each of one level."""
    folder.mkdir(parents=True)
    for t, level in enumerate(levels):
        Image.new("RGB", size, (level,) * 3).save(folder / name.format(t))


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "train" / "clip2", range(12))
    write(tmp_path / "train" / "clip10", range(100, 112))
    write(tmp_path / "test" / "a", range(3))
    write(tmp_path / "test" / "b", range(3))
    (tmp_path / "train" / "clip2" / "notes.txt").write_text("no frame")
    (tmp_path / "train" / ".hidden").mkdir()
    return tmp_path


def test_clips_and_frames_are_in_the_order_of_their_numbers(root):
    source = open_source(f"clips:{root}")
    assert source.train.images.shape == (2, 12, 5, 6, 3) and source.test.num_frames == 3 and not source.labelled
    np.testing.assert_array_equal(source.train.images[:, :, 0, 0, 0], [np.arange(12), np.arange(100, 112)])


def test_what_does_not_fit_is_refused(root):
    def refused(message):
        with pytest.raises(UserError, match=message):
            open_source(f"clips:{root}")

    with pytest.raises(UserError, match="there is no folder train in it"):
        open_source(f"clips:{root}/train")
    write(root / "train" / "clip3", range(11))
    refused(r"clip3 and .*clip2 have 11 frames of 6×5 and 12 frames of 6×5 pixels")
    Image.new("RGB", (7, 5)).save(root / "train" / "clip3" / "frame11.png")
    refused(r"frame11.png has 7×5 pixels, the first frame of its clip 6×5")
    (root / "train" / "clip3" / "frame11.png").write_bytes(b"no image")
    refused(r"frame11.png cannot be read")
    for path in (root / "train" / "clip3").iterdir():
        path.unlink()
    refused(r"clip3 has no frames")
    (root / "train" / "clip3").rmdir()
    for name in ("a", "b"):
        (root / "test" / name).rename(root / name)
    refused(r"test has no clips")
    write(root / "test" / "c", range(3), size=(5, 5))
    refused(r"of one size, got \(5, 6, 3\) and \(5, 5, 3\)")
