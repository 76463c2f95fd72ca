"""Every place that training images can live in feeds the same training."""

import contextlib
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from opened import open_inputs

from configs import imagenet100
from hamjepa_jax.data import open_source, prepare
from hamjepa_jax.data.images import decode
from hamjepa_jax.data.pipeline import parallel
from hamjepa_jax.errors import UserError
from hamjepa_jax.run import inputs as inputs_lib
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


@pytest.mark.slow
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
    return tiny.photographs(tmp_path / "photos", train=16, val=4)


@pytest.mark.slow
@pytest.mark.parametrize("store", ["stream", "device"])
def test_a_folder_of_photographs_trains_and_goes_on(store, photographs, quick_config, tmp_path):
    config = quick_config
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


# -- Images decoded once --------------------------------------------------------------------------------------


def decoded(config, source, tmp_path, store):
    """The config for squares of 10 pixels in a cache of the test's own."""
    config.data.source, config.data.store = source, store
    config.data.stored_size, config.data.cache_dir = 10, str(tmp_path / "cache")
    return config


def test_decoding_once_takes_every_core_unless_told_otherwise(photographs, tiny_config, tmp_path, monkeypatch):
    config, split = decoded(tiny_config, photographs, tmp_path, "device"), open_source(photographs).train
    materialize, asked = inputs_lib.materialize, []
    monkeypatch.setattr(
        inputs_lib, "materialize", lambda *a, **k: asked.append(k["workers"]) or materialize(*a, **k)
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    # The few images of this test are one piece of work: no process is started for them.
    monkeypatch.setattr(parallel.concurrent.futures, "ProcessPoolExecutor", None)
    for config.data.num_workers in (0, 3):
        open_inputs(config, split, make_mesh())
    assert asked == [64, 3]


def test_the_host_store_has_the_images_in_memory(photographs, tiny_config, tmp_path):
    source = open_source(photographs)
    on_device = views_of(decoded(tiny_config, photographs, tmp_path, "device"), source, 0, 1)
    config = decoded(tiny_config, photographs, tmp_path, "host")
    inputs = open_inputs(config, source.train, make_mesh())
    assert inputs.note.startswith("images in host memory take about 0.0 ")
    (file,) = (f for f in (tmp_path / "cache").glob("*.npy") if "labels" not in f.name)
    with open(file, "r+b") as stored:  # what is in memory does not change with the file
        stored.seek(-32 * 10 * 10 * 3, os.SEEK_END)
        stored.write(bytes(32 * 10 * 10 * 3))
    with contextlib.closing(inputs.batches(0)) as batches:
        batch = next(batches)
    views = np.asarray(jax.jit(inputs.views)((), batch, jnp.int32(0))[0])
    np.testing.assert_array_equal(views, on_device[0][1])


def test_more_than_the_hosts_memory_is_refused(photographs, tiny_config, tmp_path, monkeypatch):
    def too_much(needed):
        raise UserError("of streams")

    monkeypatch.setattr(inputs_lib, "check_host_memory", too_much)
    tiny_config.data.store = "host"
    with pytest.raises(UserError, match=r"data.store 'host': 96 images take 0.00 GB, .*data.store='stream'"):
        open_inputs(tiny_config, open_source(tiny_config.data.source).train, make_mesh())
    config = decoded(tiny_config, photographs, tmp_path, "host")
    with pytest.raises(UserError, match=r"data.store 'host': 32 images take"):
        open_inputs(config, open_source(photographs).train, make_mesh())
    assert not (tmp_path / "cache").exists()  # nothing has been decoded


def test_decoding_with_pillow_is_said_once_with_the_remedy(photographs, tiny_config, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(decode, "cykooz_resizer", None)
    open_inputs(tiny_config, open_source(tiny_config.data.source).train, make_mesh())
    assert "Pillow" not in caplog.text  # nothing to decode
    for store in ("device", "stream"):
        caplog.clear()
        open_inputs(decoded(tiny_config, photographs, tmp_path, store), open_source(photographs).train, make_mesh())
        assert caplog.text.count("pip install 'hamjepa-jax[fast]'") == 1
    monkeypatch.undo()
    caplog.clear()
    open_inputs(tiny_config, open_source(photographs).train, make_mesh())
    assert ("Pillow" in caplog.text) != decode.is_fast()


# -- The config of ImageNet-100 ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_imagenet100_trains_from_a_folder_as_from_its_records(photographs, tiny_config, tmp_path):
    prepare.prepare(photographs.removeprefix("folder:"), tmp_path / "records", shard_bytes=9000)
    found = {}
    for source in (photographs, f"tfds:{tmp_path / 'records'}"):
        config = imagenet100.get_config(f"epochs=1,source={source}")
        config.data.image_size, config.data.eval_resize, config.data.num_threads = 32, 36, 2
        config.views.num_local, config.views.local_size, config.views.blur_kernel = 6, 16, 5
        for name in ("width", "token_layer", "token_dim", "dtype"):
            config.encoder[name] = tiny_config.encoder[name]
        config.encoder.token_hw = 2
        config.predictor.hidden = tiny_config.predictor.hidden
        config.objective.hamjepa.projection_dim = tiny_config.objective.hamjepa.projection_dim
        config.optimizer.warmup = "1 steps"
        config.train.batch_size, config.train.steps = 8, 2
        config.update({name: tiny_config[name].to_dict() for name in ("log", "checkpoint", "evaluate")})
        config.evaluate.every, config.evaluate.probe.epochs = "", 0
        losses = []
        result = train(
            config,
            tmp_path / source.partition(":")[0],
            callbacks=[lambda step, state, metrics, losses=losses: losses.append(float(metrics["total"]))],
        )
        found[source] = losses, result
    (losses, result), of_records = found.values()
    assert len(losses) == 2 and np.isfinite(losses).all() and losses[0] != losses[1]
    assert of_records == (losses, result)
