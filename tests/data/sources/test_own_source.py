"""A source of your own as a plugin of one file: opened, streamed and decoded, in other processes too."""

import numpy as np
import photos
import pytest
from numpy.testing import assert_array_equal
from streams import assert_same, stream, take

from hamjepa_jax import parts
from hamjepa_jax.data import materialize, open_source
from hamjepa_jax.data.images import decode
from hamjepa_jax.errors import UserError

PLUGIN = """
import hashlib
import numpy as np
from hamjepa_jax.data import ArraySplit, Source
from hamjepa_jax.data.images.decode import decode
from hamjepa_jax.parts import sources

class Album:
    class_names = ("one", "two")
    def __init__(self, file):
        self.file, self.labels = file, np.arange(12, dtype=np.int32) % 2
    def __len__(self):
        return 12
    def encoded(self, i):
        return open(self.file, "rb").read() + bytes(i)  # readers ignore what follows the image
    def image(self, i):
        return decode(self.encoded(i))
    def where(self, i):
        return f"image {i} of the album"
    def identity(self):
        return hashlib.sha256(open(self.file, "rb").read()).digest()

@sources.register("album", form="album:FILE", meaning="one image, twelve times")
def open_album(rest, options):
    return Source("album", Album(rest), Album(rest))
"""


@pytest.fixture
def album(tmp_path, monkeypatch):
    monkeypatch.setattr(parts.sources, "_parts", dict(parts.sources._parts))
    plugin = photos.write(tmp_path / "album.py", PLUGIN.encode())
    parts.load_plugins((str(plugin),))
    return open_source(f"album:{photos.write(tmp_path / 'a.jpg', photos.encode(photos.picture(1)))}")


def test_worker_processes_know_the_plugin_too(album, tmp_path):
    whole = take(stream(album.train, batch_size=4), 3)
    assert_same(take(stream(album.train, batch_size=4, num_workers=1, num_threads=1), 3), whole)


@pytest.mark.slow
def test_its_images_are_decoded_once_in_several_processes(album, tmp_path, monkeypatch):
    monkeypatch.setattr("hamjepa_jax.data.pipeline.square_cache.CHUNK", 6)
    stored = materialize(
        album.train, size=16, cache_dir=tmp_path / "cache", budget_gb=1.0, shares=1, workers=2, max_broken_share=0.0
    )
    square = decode.resize_and_center_crop(album.train.image(0), 16, 16)
    assert_array_equal(stored.images, np.broadcast_to(square, (12, 16, 16, 3)))


def test_an_unknown_kind_is_refused_with_it_among_the_known_ones(album):
    with pytest.raises(UserError, match=r"unknown kind; expected one of album:, arrays:, .* config.plugins"):
        open_source("albun:x")


def test_every_source_says_its_form_and_meaning():
    for part in parts.sources.parts():
        assert part.about["form"].startswith(part.name), part.name
        assert part.about["meaning"] and len(part.settings) == 0
