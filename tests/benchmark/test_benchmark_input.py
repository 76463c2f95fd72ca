"""The benchmark of the input pipeline: what it compares runs, and its report names the rates."""

import random
import re

import numpy as np
import photos
import pytest
from PIL import Image

from hamjepa_jax.benchmark import input as benchmark
from hamjepa_jax.data.images import decode
from hamjepa_jax.errors import UserError


def test_the_report_has_four_rates(tmp_path):
    report = benchmark.benchmark_input(photos.image_folder(tmp_path, train=1, val=1), size=16, rounds=1)
    assert "6 JPEGs, median" in report
    rates = [float(x) for x in re.findall(r"^(?:decode|the|Pillow).*?(\d+)(?: +[\d.]+ ×)?\s*$", report, re.M)]
    assert len(rates) == 4 and rates[3] == benchmark.PUBLISHED and min(rates) > 0
    with pytest.raises(UserError, match=r"no .jpg or .jpeg files"):
        benchmark.benchmark_input(tmp_path / "train" / "nothing")


@pytest.mark.skipif(not decode.is_fast(), reason="simplejpeg or cykooz_resizer is not installed")
def test_the_ceiling_decodes_as_the_pipeline_does(tmp_path, monkeypatch):
    decode_jpeg, found = decode._decode_jpeg, []

    def watched(data, size, buffer):
        found.append((size, buffer is None))
        return decode_jpeg(data, size, buffer)

    monkeypatch.setattr(decode, "_decode_jpeg", watched)
    benchmark.benchmark_input(photos.image_folder(tmp_path, train=1, val=1), size=16, rounds=1)
    ours, ceiling = found[6:12], found[12:]  # The first six look at the images' shapes.
    assert ceiling == ours and not any(is_fresh for _, is_fresh in ceiling)


def test_the_comparison_makes_whole_views():
    random.seed(0)
    views = [benchmark._pillow_view(Image.fromarray(photos.picture(k)), 16) for k in range(40)]
    assert all(v.shape == (3, 16, 16) and v.dtype == np.float32 and np.isfinite(v).all() for v in views)
    colourless = [
        np.ptp(v * benchmark.STD[:, None, None] + benchmark.MEAN[:, None, None], axis=0).max() for v in views
    ]
    assert 1 <= sum(c < 0.01 for c in colourless) <= 20  # a fifth are grey


def test_a_turn_of_the_hue_keeps_greys_and_moves_colours():
    image = Image.fromarray(photos.picture(0))
    grey = image.convert("L").convert("RGB")
    assert np.abs(np.asarray(benchmark._pillow_hue(grey, 0.1), int) - np.asarray(grey)).max() <= 1
    assert np.abs(np.asarray(benchmark._pillow_hue(image, 0.0), int) - np.asarray(image)).mean() < 4
    assert np.abs(np.asarray(benchmark._pillow_hue(image, 0.1), int) - np.asarray(image)).mean() > 4
