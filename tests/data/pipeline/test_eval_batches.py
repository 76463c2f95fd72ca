"""Evaluation images: all of them, in order, and broken ones told of."""

import threading

import numpy as np
import photos
import pytest
from numpy.testing import assert_array_equal

from hamjepa_jax.data import Broken, eval_batches, open_source
from hamjepa_jax.data.images import decode
from hamjepa_jax.errors import UserError

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def root(tmp_path):
    return photos.image_folder(tmp_path / "photos")


def squares(split, **changes):
    defaults = dict(resize=24, size=20, batch_size=7, num_threads=3)
    return eval_batches(split, **defaults | changes)


def test_every_image_is_there_once_and_in_order(root):
    split = open_source(f"folder:{root}").train
    batches = list(squares(split))
    assert [len(b) for b in batches] == [7, 7, 7, 3]
    expected = [decode.resize_and_center_crop(split.image(i), 24, 20) for i in range(24)]
    assert_array_equal(np.concatenate(batches), expected)
    assert_array_equal(np.concatenate(list(squares(split, num_threads=0, batch_size=100))), expected)


def test_broken_images_stop_an_evaluation_or_are_told_of(root):
    (root / "train/cat/cat_5.JPEG").write_bytes(b"")
    split = open_source(f"folder:{root}").train
    with pytest.raises(UserError, match=r"1 broken image: .*cat_5.JPEG \(the file is empty\)"):
        list(squares(split))
    told: list[Broken] = []
    images = np.concatenate(list(squares(split, on_broken=told.append)))
    assert [b.index for b in told] == [5] and told[0].where.endswith("cat_5.JPEG")
    assert len(images) == 24 and not images[5].any() and images[6].any()


def test_leaving_an_evaluation_early_ends_its_threads(root):
    before = set(threading.enumerate())
    batches = squares(open_source(f"folder:{root}").train)
    next(batches)
    started = set(threading.enumerate()) - before
    assert len(started) == 3
    batches.close()
    for thread in started:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in started)


def test_an_image_smaller_than_the_square_is_named(root):
    path = photos.write(root / "train/cat/cat_5.JPEG", photos.encode(photos.picture(0, 30, 12)))
    split = open_source(f"folder:{root}").train
    with pytest.raises(UserError, match=rf"data.eval_resize is not set: {path} has 30 x 12 pixels, .* 16 x 16"):
        list(squares(split, resize=None, size=16))
    assert len(np.concatenate(list(squares(split, resize=16, size=16)))) == 24
