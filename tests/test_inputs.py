"""Every place that training images can live in feeds the same training."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from hamjepa_jax.data import open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.inputs import open_inputs
from hamjepa_jax.train import train
from hamjepa_jax.training.mesh import make_mesh


def views_of(config, source, first_step, count):
    """Example indices and views of some batches."""
    inputs = open_inputs(config, source.train, make_mesh())
    views, found = jax.jit(inputs.views), []
    with contextlib.closing(inputs.batches(first_step)) as batches:
        for _ in range(count):
            batch = next(batches)
            index = batch if isinstance(batch, jax.Array) else batch["index"]
            found.append((np.asarray(index), np.asarray(views(inputs.store, batch, jnp.int32(0))[0])))
    return found


def test_host_and_device_stores_give_the_same_views(tiny_config):
    source = open_source(tiny_config.data.source)
    on_device = views_of(tiny_config, source, 1, 2)
    tiny_config.data.store = "host"
    in_memory = views_of(tiny_config, source, 1, 2)
    jax.tree.map(np.testing.assert_array_equal, on_device, in_memory)


def test_a_stream_has_the_order_of_the_store(tiny_config):
    source = open_source(tiny_config.data.source)
    on_device = views_of(tiny_config, source, 2, 1)
    tiny_config.data.store = "stream"
    (index, views), *_ = views_of(tiny_config, source, 2, 1)
    np.testing.assert_array_equal(index, on_device[0][0])
    assert views.shape == on_device[0][1].shape and np.isfinite(views).all()


@pytest.fixture
def photographs(tmp_path):
    """A folder of 2 classes, 16 training and 4 validation images each, of various sizes."""
    rng = np.random.default_rng(0)
    for part, number in (("train", 16), ("val", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 256, (12 + i, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return f"folder:{tmp_path / 'photos'}"


@pytest.mark.parametrize("store", ["stream", "device"])
def test_a_folder_of_photographs_trains_and_goes_on(store, photographs, tiny_config, tmp_path):
    config = tiny_config
    config.data.source, config.data.store = photographs, store
    config.data.eval_resize, config.data.num_threads, config.data.cache_dir = 10, 2, str(tmp_path / "cache")
    if store == "device":
        config.data.stored_size = 10
    else:  # With local views, of their own size.
        config.views.num_local, config.views.local_size, config.encoder.token_hw = 3, 6, 2
    config.train.epochs, config.evaluate.ks = 3, (1, 5)

    def stop(step, state, metrics):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", callbacks=[stop])
    result = train(config, tmp_path / "run")
    assert train(config, tmp_path / "whole") == result  # as if it had never been interrupted
    assert result["step"] == 6


def test_photographs_on_the_device_need_a_size(photographs, tiny_config):
    tiny_config.data.source = photographs
    source = open_source(photographs)
    with pytest.raises(UserError, match=r"data\.stored_size.*data\.store='stream'"):
        open_inputs(tiny_config, source.train, make_mesh())
