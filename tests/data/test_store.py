"""The device-resident store: replicated, within its budget, gathered without communication."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from numpy.testing import assert_array_equal

from hamjepa_jax.data import ArraySplit, DeviceStore, gather
from hamjepa_jax.errors import UserError


@pytest.fixture
def mesh():
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


@pytest.fixture
def split():
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)
    return ArraySplit(images, np.arange(50, dtype=np.int32) % 7, tuple("abcdefg"))


def test_every_device_holds_the_whole_split(mesh, split):
    store = DeviceStore(split, mesh, memory_budget_gb=1.0)
    assert store.images.dtype == jnp.uint8 and store.labels.dtype == jnp.int32
    for array, original in ((store.images, split.images), (store.labels, split.labels)):
        assert array.sharding.is_fully_replicated and len(array.addressable_shards) == 8
        for shard in array.addressable_shards:
            assert_array_equal(shard.data, original)


def test_a_batch_is_gathered_where_its_indices_are(mesh, split):
    store = DeviceStore(split, mesh, memory_budget_gb=1.0)
    over_batch = NamedSharding(mesh, PartitionSpec("data"))
    indices = np.random.default_rng(1).permutation(50)[:16].astype(np.int32)
    placed = jax.device_put(indices, over_batch)
    batch = jax.jit(gather)(store.images, placed)
    assert_array_equal(batch, split.images[indices])
    assert batch.sharding.is_equivalent_to(over_batch, batch.ndim)
    text = jax.jit(gather).lower(store.images, placed).compile().as_text()
    assert not any(word in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))


def test_a_split_above_the_budget_is_refused_with_what_it_needs(mesh, split):
    needed = split.images.nbytes / 1e9
    DeviceStore(split, mesh, memory_budget_gb=needed)
    with pytest.raises(UserError, match=r"data.memory_budget_gb .*50 images take 0.00 GB.*raise the budget"):
        DeviceStore(split, mesh, memory_budget_gb=needed * 0.99)
