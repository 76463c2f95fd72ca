import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from hamjepa_jax.evaluation import area_downsample, extract, readouts

TRACES = []


def encode(variables, images):
    TRACES.append(images.shape)
    flat = images.reshape(images.shape[0], -1).astype(jnp.bfloat16)
    return (flat @ variables["w"].astype(jnp.bfloat16)).astype(jnp.float32)


def images(n):
    return np.random.default_rng(0).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)


VARIABLES = {"w": np.random.default_rng(1).standard_normal((48, 6)).astype(np.float32)}


@pytest.mark.parametrize("n", [1, 8, 16, 21])
def test_every_image_gets_its_features_from_one_compiled_program(n):
    x = images(n)
    TRACES.clear()
    found = extract(encode, x, batch_size=8, variables=VARIABLES)
    assert found.shape == (n, 6) and found.dtype == np.float32 and isinstance(found, np.ndarray)
    assert len(TRACES) <= 1
    np.testing.assert_allclose(found, np.asarray(encode(VARIABLES, jnp.asarray(x))), rtol=1e-2, atol=1e-2)
    TRACES.clear()
    changed = extract(encode, x, batch_size=8, variables={"w": 2 * VARIABLES["w"]})
    np.testing.assert_array_equal(changed, 2 * found)  # new weights, the old program
    assert not TRACES


@pytest.mark.parametrize("shape", [(8,), (4, 2), (3,)])
def test_devices_of_a_mesh_share_each_batch(shape):
    names = ("data", "other")[: len(shape)]
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(shape), devices=devices)
    seen = []

    def identity(x):
        seen.append(x.shape)
        return x.reshape(x.shape[0], -1).astype(jnp.float32)

    x = images(37)
    for given in (x, jnp.asarray(x)):
        found = extract(identity, given, batch_size=10, mesh=mesh)
        np.testing.assert_array_equal(found, x.reshape(37, -1))
    assert set(seen) == {(-(-10 // mesh.size) * mesh.size, 4, 4, 3)}


def test_batches_of_any_size_keep_their_order():
    x = images(20)
    parts = [x[:8], x[8:9], x[9:9], jnp.asarray(x[9:16]), x[16:]]
    found = extract(lambda b: b.reshape(b.shape[0], -1).astype(jnp.float16), iter(parts), batch_size=8)
    np.testing.assert_array_equal(found, x.reshape(20, -1))


def test_a_batch_is_never_filled_up_beyond_the_images():
    seen = []

    def encode_all(x):
        seen.append(x.shape)
        return x.reshape(x.shape[0], -1).astype(jnp.float32)

    x = images(20)
    np.testing.assert_array_equal(extract(encode_all, x, batch_size=2**31 - 1), x.reshape(20, -1))
    assert seen == [(20, 4, 4, 3)]


def test_readouts_are_the_halves_and_the_whole():
    z = np.arange(24.0).reshape(3, 8)
    parts = readouts(z, split=True)
    assert list(parts) == ["q", "p", "qp"]
    np.testing.assert_array_equal(np.concatenate([parts["q"], parts["p"]], axis=1), parts["qp"])
    assert list(readouts(z, split=False)) == ["z"]


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="no images"):
        extract(encode, images(0), batch_size=4, variables=VARIABLES)
    with pytest.raises(ValueError, match=r"\(9, 4, 4, 3\) exceeds batch_size=4"):
        extract(encode, [images(9)], batch_size=4, variables=VARIABLES)
    with pytest.raises(ValueError, match=r"\[4, K\].*\(4, 4, 4, 3\)"):
        extract(lambda x: x, images(5), batch_size=4)
    with pytest.raises(ValueError, match=r"\(3, 7\)"):
        readouts(np.zeros((3, 7)), split=True)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        readouts(np.zeros(3), split=False)


@pytest.mark.parametrize("size, largest", [(8, 8), (8, 4), (7, 3), (224, 32)])
def test_area_downsampling_averages_what_each_pixel_covers(size, largest):
    column = np.random.default_rng(0).random((2, size, 1, 3), np.float32)
    # Each pixel cut into `largest` equal parts: then every bin is a whole number of parts.
    expected = np.repeat(column, largest, axis=1).reshape(2, largest, size, 1, 3).mean(axis=2)
    np.testing.assert_allclose(area_downsample(jnp.asarray(column), largest), expected, atol=1e-5)
    square = np.broadcast_to(column, (2, size, size, 3))
    expected = np.broadcast_to(expected, (2, largest, largest, 3))
    np.testing.assert_allclose(area_downsample(jnp.asarray(square), largest), expected, atol=1e-5)
