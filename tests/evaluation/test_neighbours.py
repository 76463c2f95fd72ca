"""The nearest training examples that the picture of neighbours shows."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hamjepa_jax import build, report
from hamjepa_jax.data import ArraySplit, Source
from hamjepa_jax.evaluate import Evaluator
from hamjepa_jax.evaluation import first_of_each_class, nearest
from hamjepa_jax.report.neighbours import OTHER, SAME
from hamjepa_jax.training.mesh import make_mesh


def test_nearest_is_by_cosine_with_ties_in_the_order_of_the_bank():
    bank = np.asarray([[2.0, 0.0], [0.0, 0.0], [1.0, 1.0], [5.0, 0.0], [-1.0, 0.0], [0.0, 3.0]])
    found = nearest(bank, np.asarray([[3.0, 0.1], [0.0, 2.0]]), 6)
    assert_array_equal(found, [[0, 3, 2, 5, 1, 4], [5, 2, 0, 1, 3, 4]])
    assert nearest(bank[:2], bank[:1], 5).shape == (1, 2)
    assert_array_equal(first_of_each_class(np.asarray([2, 0, 2, 1, 0]), 2), [1, 3])


@pytest.fixture
def evaluator(tiny_config):
    """An evaluator whose training and test images are grey: image i has the level 10·i and the class i mod 4."""
    images = np.tile(10 * np.arange(24, dtype=np.uint8)[:, None, None, None], (1, 8, 8, 3))
    split = ArraySplit(images, (np.arange(24) % 4).astype(np.int32), tuple("abcd"))
    tiny_config.evaluate.references, tiny_config.data.max_broken_share = ("pixels",), 0.5
    return Evaluator(tiny_config, build.build_model(tiny_config), Source("grey", split, split), make_mesh())


def states():
    """[24, 4]: q turns with the number of the image; p has another order."""
    angle = np.arange(24) / 24
    return np.stack([np.cos(angle), np.sin(angle), np.roll(angle, 12), 1 - angle], axis=1)


def levels(of_queries):
    return [[int(n.image[0, 0, 0]) for n in of_query] for of_query in of_queries]


def test_neighbours_are_the_images_of_the_nearest_q_and_of_the_nearest_pixels(evaluator):
    found = evaluator.neighbours([states(), states()])
    assert [int(image[0, 0, 0]) for image in found.queries] == [0, 10, 20, 30]
    assert levels(found.by["q"])[0] == [0, 10, 20, 30, 40] and levels(found.by["q"])[3][0] == 30
    assert [n.same_class for n in found.by["q"][0]] == [True, False, False, False, True]
    # Below the mean of 0.5 all grey levels point the same way, above it the other way.
    assert max(level for of_query in levels(found.by["raw pixels"]) for level in of_query) < 128


def test_training_images_that_were_left_out_shift_no_row(evaluator):
    evaluator._broken.report([(1, "image 1", "broken")])
    found = evaluator.neighbours([np.delete(states(), 1, axis=0), states()])
    assert levels(found.by["q"])[0] == [0, 20, 30, 40, 50]


def test_the_figure_shows_images_of_any_size(tmp_path):
    images = [np.full((h, w, 3), 99, np.uint8) for h, w in ((8, 8), (300, 200), (1, 7))]
    rows = [[report.Neighbour(image, same) for image, same in zip(images, (True, False, True), strict=True)]] * 2
    path = report.neighbours_figure(report.Neighbours(images[:2], {"z": rows}), tmp_path / "n.png")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    for colour in (SAME, OTHER):
        assert (pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1).any()
    assert path.with_suffix(".pdf").stat().st_size < 100_000
