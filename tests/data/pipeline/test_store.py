"""The device-resident store: spread over the devices, within its budget, and no more than a batch ever moves."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from numpy.testing import assert_array_equal

from hamjepa_jax.data import ArraySplit, DeviceStore, gather, spread
from hamjepa_jax.errors import UserError
from hamjepa_jax.training.mesh import batch_sharded, make_mesh

# Devices, and how many of them share one copy of the parameters.
MESHES = [(1, 1), (2, 1), (8, 1), (8, 2), (8, 4)]


def mesh_of(devices, fsdp=1):
    return make_mesh(fsdp, jax.devices()[:devices])


def random_images(n):
    return np.random.default_rng(0).integers(0, 256, (n, 6, 5, 3), dtype=np.uint8)


def split_of(n):
    return ArraySplit(random_images(n), np.arange(n, dtype=np.int32) % 7, tuple("abcdefg"))


@pytest.mark.parametrize("n", [48, 50, 5])
@pytest.mark.parametrize("devices, fsdp", MESHES)
def test_a_device_holds_its_share_of_the_images(devices, fsdp, n):
    split, rows = split_of(n), -(-n // devices)
    images = DeviceStore(split, mesh_of(devices, fsdp), memory_budget_gb=1.0).images
    assert images.dtype == jnp.uint8 and images.shape[0] == rows * devices
    assert [shard.data.shape[0] for shard in images.addressable_shards] == [rows] * devices
    assert_array_equal(images[:n], split.images)
    assert not np.asarray(images[n:]).any()


def test_only_the_rows_of_this_process_are_read():
    class Watched(np.ndarray):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    asked = []
    spread(random_images(50).view(Watched), mesh_of(8))
    rows = [i for i in asked if isinstance(i, slice)]
    assert sorted({(i.start, i.stop) for i in rows}) == [(k, k + 7) for k in range(0, 56, 7)]


@pytest.mark.parametrize("devices, fsdp", MESHES)
def test_a_batch_is_the_images_of_its_indices_where_the_indices_are(devices, fsdp):
    mesh, images = mesh_of(devices, fsdp), random_images(50)
    over_batch = batch_sharded(mesh)
    indices = np.random.default_rng(1).permutation(50)[:16].astype(np.int32)
    indices[3] = indices[5] = 49  # twice in one batch, and next to the padding
    batch = jax.jit(lambda x, i: gather(x, i, mesh))(spread(images, mesh), jax.device_put(indices, over_batch))
    assert batch.dtype == jnp.uint8
    assert_array_equal(batch, images[indices])
    assert batch.sharding.is_equivalent_to(over_batch, batch.ndim)


def test_a_batch_can_be_gathered_in_a_scan_and_under_vmap():
    mesh, images = mesh_of(8, 2), random_images(50)
    held = spread(images, mesh)
    indices = np.random.default_rng(2).integers(0, 50, (3, 16), dtype=np.int32)
    scanned = jax.jit(lambda x, i: jax.lax.scan(lambda c, row: (c, gather(x, row, mesh)), 0, i)[1])
    assert_array_equal(scanned(held, indices), images[indices])
    mapped = jax.jit(jax.vmap(lambda x, i: gather(x, i, mesh), in_axes=(None, 0)))
    assert_array_equal(mapped(held, indices), images[indices])


def test_images_never_gather_on_a_device():
    mesh, n, b = mesh_of(8, 2), 800, 16
    held = jax.ShapeDtypeStruct((n, 6, 5, 3), jnp.uint8, sharding=batch_sharded(mesh))
    indices = jax.ShapeDtypeStruct((b,), jnp.int32, sharding=batch_sharded(mesh))
    compiled = jax.jit(lambda x, i: gather(x, i, mesh)).lower(held, indices).compile()
    text = compiled.as_text()
    gathered = re.findall(r"= (\S+?)\[\S* all-gather(?:-start)?\(", text)
    assert gathered and set(gathered) <= {"s32"}, gathered  # of the indices only
    assert f"u8[{n}," not in text and "reduce-scatter" in text
    assert not any(word in text for word in ("all-reduce", "all-to-all", "collective-permute"))
    # Besides its share of the images a device needs no more than a few batches.
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * b * 6 * 5 * 3


def test_on_one_device_nothing_is_communicated():
    mesh = mesh_of(1)
    over_batch = NamedSharding(mesh, PartitionSpec("data"))
    indices = jax.device_put(np.arange(4, dtype=np.int32), over_batch)
    text = (
        jax.jit(lambda x, i: gather(x, i, mesh)).lower(spread(random_images(9), mesh), indices).compile().as_text()
    )
    assert not any(word in text for word in ("all-gather", "reduce-scatter", "all-reduce"))


def test_a_share_above_the_budget_is_refused_with_what_it_needs():
    mesh, split = mesh_of(8), split_of(50)
    needed = 7 * 6 * 5 * 3 / 1e9
    DeviceStore(split, mesh, memory_budget_gb=needed)
    with pytest.raises(
        UserError, match=r"data.memory_budget_gb .*50 images take 0.00 GB on each of 8 devices.*raise"
    ):
        DeviceStore(split, mesh, memory_budget_gb=needed * 0.99)
