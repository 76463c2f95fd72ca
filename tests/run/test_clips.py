"""Runs on clips: every store, one and eight devices, several seeds at once, and what images do not pay for."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_seeds import logged, newest, signalled_after_logging, with_seed

from hamjepa_jax import build
from hamjepa_jax.config import check_frames, default_config
from hamjepa_jax.data import open_source
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.export import export_run
from hamjepa_jax.interop.pretrained import load
from hamjepa_jax.objectives import Objective
from hamjepa_jax.run.inputs import inputs_of
from hamjepa_jax.run.setup import set_up
from hamjepa_jax.train import train, train_seeds
from hamjepa_jax.training.mesh import make_mesh, replicated
from hamjepa_jax.training.step import Fixed, Running, make_gradients
from hamjepa_jax.training.writer import MetricsWriter


@pytest.fixture
def clip_config(tmp_path):
    """A quick run on 32 clips of 6 frames of 8×8 pixels, two of them a view; the test clips are longer."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (32, frames, 8, 8, 3), dtype=np.uint8) for frames in (6, 9))
    states = rng.standard_normal((32, 9, 2))
    np.savez(tmp_path / "clips.npz", train_clips=train, test_clips=test, train_states=states[:, :6],
             test_states=states, dt=0.5)  # fmt: skip
    config = tiny.quick("hamjepa")
    config.data.source = f"arrays:{tmp_path}/clips.npz"
    config.views.stack, config.views.max_gap = 2, 3
    config.evaluate.probe.epochs = 0
    return config


def test_an_arrays_file_of_clips_has_states_and_a_time_step(clip_config, tmp_path):
    source = open_source(clip_config.data.source)
    assert source.train.num_frames == 6 and source.test.states.shape == (32, 9, 2) and source.test.dt == 0.5
    assert not source.labelled and source.train.image(1).shape == (8, 8, 3)
    with np.load(clip_config.data.source.removeprefix("arrays:")) as data:
        labels = dict(train_labels=np.arange(32) % 2, test_labels=np.arange(32) % 2, class_names=["a", "b"])
        np.savez(tmp_path / "labelled.npz", **data, **labels)
    assert open_source(f"arrays:{tmp_path}/labelled.npz").test.labels.tolist() == [0, 1] * 16


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(test_clips=None), r"lacks test_clips; expected train_clips, test_clips"),
        (dict(test_states=np.zeros((4, 3, 2))), r"lacks train_states"),
        (dict(train_states=np.zeros((4, 3, 3)), test_states=np.zeros((4, 3, 2))),
         r"train_states is float64 \(4, 3, 3\); expected finite floats \[4, 3, 2d\]"),
        (dict(train_states=np.zeros((4, 3, 2)), test_states=np.zeros((4, 3, 4))),
         r"train_states and test_states must be of one system, got \(4, 3, 2\) and \(4, 3, 4\)"),
        (dict(train_states=np.zeros((4, 3, 2)), test_states=np.full((4, 3, 2), np.nan)),
         r"test_states is float64 \(4, 3, 2\); expected finite floats"),
        (dict(dt=-1.0), r"dt is float64 \(\) -1.0; expected one number above 0"),
        (dict(train_clips=np.zeros((4, 8, 8, 3), np.uint8)), r"expected uint8 \[n, frames, height, width, 3\]"),
        (dict(test_clips=np.zeros((4, 3, 8, 9, 3), np.uint8)), r"of one size, got \(8, 8, 3\) and \(8, 9, 3\)"),
    ],
)  # fmt: skip
def test_arrays_files_of_other_clips_are_refused(change, message, tmp_path):
    clips = dict(train_clips=np.zeros((4, 3, 8, 8, 3), np.uint8), test_clips=np.zeros((4, 3, 8, 8, 3), np.uint8))
    np.savez(tmp_path / "x.npz", **{k: v for k, v in (clips | change).items() if v is not None})
    with pytest.raises(UserError, match=message):
        open_source(f"arrays:{tmp_path}/x.npz")


def first_step(config, devices):
    mesh = make_mesh(1, jax.devices()[:devices])
    source = open_source(config.data.source)
    inputs = inputs_of(config, source.train, mesh)
    training = build.build_training(
        config, build.build_model(config), len(source.train), mesh, reads=inputs.reads()
    )
    opened = inputs.open()
    state = jax.jit(lambda: training.init(build.init_key(config)), out_shardings=replicated(mesh))()
    with contextlib.closing(opened.batches(0)) as batches:
        new, metrics = jax.jit(training.step)(state, opened.store, next(batches))
    return jax.device_get((new.params, metrics))


def first_views(config):
    """Views and gaps of the first batch."""
    mesh = make_mesh(1, jax.devices()[:1])
    inputs = inputs_of(config, open_source(config.data.source).train, mesh)
    opened = inputs.open()
    with contextlib.closing(opened.batches(0)) as batches:
        batch = next(batches)
    make = jax.jit(lambda store, batch: (inputs.views(store, batch, 0), inputs.gaps(batch, 0)))
    return jax.device_get(make(opened.store, batch))


def test_device_and_host_store_give_the_same_views_and_gaps(clip_config):
    (views,), gaps = on_device = first_views(clip_config)
    assert views.shape == (16, 2, 8, 8, 6) and set(gaps.tolist()) == {1, 2, 3}
    clip_config.data.store = "host"
    jax.tree.map(np.testing.assert_array_equal, on_device, first_views(clip_config))


def test_the_objective_gets_the_gaps_of_the_views_that_it_sees(clip_config, tmp_path):
    """In each epoch, with a seed that is traced: views of numbered frames are as far apart as the gaps say."""
    levels = 10 * np.arange(9, dtype=np.uint8)[None, :, None, None, None]
    frames = np.broadcast_to(levels, (32, 9, 8, 8, 3))
    np.savez(tmp_path / "numbered.npz", train_clips=frames[:, :6], test_clips=frames)
    clip_config.data.source = f"arrays:{tmp_path}/numbered.npz"
    mesh = make_mesh(1, jax.devices()[:1])
    inputs = inputs_of(clip_config, open_source(clip_config.data.source).train, mesh)
    opened = inputs.open()
    with contextlib.closing(opened.batches(0)) as batches:
        batch = next(batches)

    def embed(params, stats, images):  # The number of a view's first frame.
        mean, std = (getattr(clip_config.data, name)[0] for name in ("mean", "std"))
        number = 255 * (images[:, 0, 0, :1] * std + mean) / 10
        return (number, number), stats

    def loss(params, z, draw, epoch, gaps):
        return 0.0 * params["x"], {"off": jnp.abs(z[1] - z[0] - gaps[:, None]).max(), "widest": gaps.max()}

    objective = Objective(lambda count: (), 1, loss, reads_gaps=True)

    @jax.jit
    def found(epoch, seed):
        gradients = make_gradients(embed=embed, reads=inputs.reads(seed), objective=objective, mesh=mesh)
        params = {"predictor": {"x": jnp.ones(())}}
        return gradients(params, Running({}, None, None), Fixed(None, (), epoch), opened.store, batch)[1]

    for epoch, seed in ((0, 0), (1, 0), (5, 3)):
        metrics = found(jnp.int32(epoch), jnp.int32(seed))
        assert metrics["off"] < 1e-3 and metrics["widest"] == 3


def test_both_views_of_a_clip_have_one_crop_and_colours_by_default():
    assert default_config().views.shared


@pytest.mark.slow
def test_one_and_eight_devices_agree_on_clips_and_the_gaps_reach_the_loss(clip_config):
    alone, spread = first_step(clip_config, 1), first_step(clip_config, 8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), alone, spread)
    clip_config.views.max_gap = 1
    assert abs(first_step(clip_config, 1)[1]["pred"] - alone[1]["pred"]) > 1e-6


@pytest.mark.slow
def test_a_run_on_clips_trains_evaluates_and_goes_on(clip_config, tmp_path):
    results = train(clip_config, tmp_path / "run")
    assert results["step"] == 4 and "q/rankme" in results["trained"]
    assert train(clip_config, tmp_path / "run")["step"] == 4
    for read in (lambda: load(tmp_path / "run"), lambda: export_run(tmp_path / "run", tmp_path / "export")):
        with pytest.raises(UserError, match=r"run: views.stack=2, so the encoder reads stacks of frames"):
            read()


@pytest.mark.slow
def test_a_run_on_clips_goes_on_exactly_and_seeds_at_once_are_the_runs_alone(clip_config, tmp_path, monkeypatch):
    clip_config.train.steps, clip_config.checkpoint.every, clip_config.evaluate.every = 4, "1 steps", ""
    configs = [with_seed(clip_config, seed) for seed in (0, 5)]
    with monkeypatch.context() as patch:
        patch.setattr(MetricsWriter, "write_scalars", signalled_after_logging(2))
        assert train(configs[0], tmp_path / "stopped") is None
    for name, config in (("stopped", configs[0]), ("a0", configs[0]), ("a1", configs[1])):
        train(config, tmp_path / name)
    jax.tree.map(
        np.testing.assert_array_equal, *(newest(configs[0], tmp_path / name)[1] for name in ("stopped", "a0"))
    )
    together = [tmp_path / "b0", tmp_path / "b1"]
    assert train_seeds(configs, together, open_source(clip_config.data.source))
    for alone, folder in zip(("a0", "a1"), together, strict=True):
        np.testing.assert_allclose(*(logged(w, "train/pred") for w in (tmp_path / alone, folder)), rtol=2e-3)


def test_images_pay_nothing_for_clips():
    """The step's program on images does not know of gaps, stacks and shared crops."""
    programs = []
    for changed in (False, True):
        config = tiny.quick("hamjepa")
        setup = set_up(config)
        if changed:
            config.views.max_gap, config.views.shared = 4, False
        source = open_source(config.data.source)
        inputs = inputs_of(config, source.train, setup.mesh)
        training = build.build_training(config, setup.model, len(source.train), setup.mesh, reads=inputs.reads())
        assert inputs.gaps(jnp.zeros(4, jnp.int32), jnp.int32(0)) is None
        programs.append(str(jax.make_jaxpr(training.step)(setup.abstract, *inputs.abstract())))
    assert programs[0] == programs[1]


@pytest.mark.parametrize(
    "frames, change, message",
    [
        (None, {"views.stack": 2}, "views.stack 2: .* has images and no clips"),
        (None, {"views.max_gap": 2}, "views.max_gap 2: .* has images and no clips"),
        (6, {"data.store": "stream"}, "data.store 'stream': clips are not streamed"),
        (6, {"views.num_local": 1}, "views.num_global 2, views.num_local 1: clips have two global views"),
        (4, {"views.max_gap": 3}, "views.max_gap 3: the training clips .* have 4 frames, .* use at most 2"),
        (1, {}, "views.stack 2: the training clips .* have 1 frame; use at most that"),
        (2, {}, "views.stack 2: .* have 2 frames, and none is left for a later view; use at most 1, or longer"),
        (1, {"views.stack": 1}, "views.stack 1: .* have 1 frame, and none is left for a later view; use longer"),
        (6, {"evaluate.lidar.images": 9}, "evaluate.lidar.images 9: LiDAR takes random views of images"),
    ],
)
def test_what_does_not_fit_the_frames_is_refused(frames, change, message, clip_config):
    clip_config.views.stack, clip_config.views.max_gap = (1, 1) if frames is None else (2, 1)
    clip_config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        check_frames(clip_config, frames)


def test_test_clips_shorter_than_a_view_are_refused_before_training(clip_config, tmp_path):
    with np.load(clip_config.data.source.removeprefix("arrays:")) as data:
        short = {name: data[name][:, :1] if name.startswith("test") else data[name] for name in data.files}
    np.savez(tmp_path / "short.npz", **short)
    clip_config.data.source = f"arrays:{tmp_path}/short.npz"
    with pytest.raises(
        UserError, match=r"views\.stack 2: the test clips of .*short.npz' have 1 frame; use at most"
    ):
        set_up(clip_config)
    clip_config.views.stack = 1
    set_up(clip_config)
