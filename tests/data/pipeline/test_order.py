"""Order of examples: a function of (seed, step) alone."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hamjepa_jax.data.pipeline import order
from hamjepa_jax.errors import UserError


def take(batches, count):
    return list(itertools.islice(batches, count))


def test_a_permutation_is_one_and_changes_with_seed_and_epoch():
    first = order.permutation(3, 0, 101)
    assert first.dtype == np.int32
    assert_array_equal(np.sort(first), np.arange(101))
    assert_array_equal(first, order.permutation(3, 0, 101))
    for seed, epoch in ((3, 1), (4, 0)):
        assert (first != order.permutation(seed, epoch, 101)).mean() > 0.8


def test_every_step_can_be_reached_directly():
    n, batch_size = 23, 5  # four batches an epoch, three examples left over
    whole = take(order.index_batches(1, 0, n=n, batch_size=batch_size), 13)
    for step, batch in enumerate(whole):
        assert batch.shape == (batch_size,) and batch.dtype == np.int32
        assert_array_equal(batch, order.batch_indices(1, step, n=n, batch_size=batch_size))
    for first in (3, 4, 9):
        resumed = take(order.index_batches(1, first, n=n, batch_size=batch_size), 13 - first)
        assert_array_equal(resumed, whole[first:])


def test_an_epoch_shows_each_example_at_most_once_and_epochs_leave_out_different_ones():
    batches = take(order.index_batches(0, 0, n=23, batch_size=5), 8)
    epochs = [np.concatenate(batches[:4]), np.concatenate(batches[4:])]
    left_out = [set(range(23)) - set(epoch.tolist()) for epoch in epochs]
    assert [len(x) for x in left_out] == [3, 3]
    assert left_out[0] != left_out[1]


def test_a_permutation_is_computed_once_per_epoch(monkeypatch):
    computed = []
    permutation = order.permutation
    monkeypatch.setattr(order, "permutation", lambda *a: computed.append(a) or permutation(*a))
    take(order.index_batches(0, 2, n=23, batch_size=5), 7)  # steps 2 … 8: epochs 0, 1 and 2
    assert computed == [(0, 0, 23), (0, 1, 23), (0, 2, 23)]


@pytest.mark.parametrize("batch_size", [0, 24])
def test_a_batch_that_cannot_be_filled_is_refused_at_once(batch_size):
    with pytest.raises(UserError, match=rf"train.batch_size {batch_size}: data.source has 23 .* 1 to 23"):
        order.index_batches(0, 0, n=23, batch_size=batch_size)
