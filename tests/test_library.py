"""The package as a library: trained encoders on any images, training with your own data, objective and metrics."""

import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import hamjepa_jax as hj
from hamjepa_jax.data import ArraySplit, Source, eval_images
from hamjepa_jax.errors import UserError
from hamjepa_jax.interop.export import export_run
from hamjepa_jax.interop.workdirs import fresh_state, write_workdir
from hamjepa_jax.nn.encoder import flatten_tokens


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("runs") / "tiny", tiny.get_config()
    write_workdir(folder, config, fresh_state(config), {"file": "none"})
    return folder


@pytest.fixture(scope="module")
def encoder(workdir):
    return hj.load(workdir)


def images(n, height=8, width=8):
    return np.random.default_rng(n).integers(0, 256, (n, height, width, 3), np.uint8)


def test_importing_the_package_imports_no_jax():
    code = "import sys, hamjepa_jax; assert callable(hamjepa_jax.load); assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_modules_of_interop_are_found_when_asked_for():
    code = (
        "import sys; from hamjepa_jax import interop; assert 'jax' not in sys.modules;"
        "assert callable(interop.torch.encoder_from_state_dict) and callable(interop.export.export_run);"
        "assert callable(interop.pretrained.load) and callable(interop.torch.import_checkpoint);"
        "assert not hasattr(interop, 'onnx')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_states_have_the_documented_parts(encoder):
    states = encoder(images(3))
    assert states.z.shape == (3, 64) and states.z.dtype == jnp.float32
    assert states.tokens.shape == (3, 4, 4, 4)
    np.testing.assert_array_equal(states.z, jnp.concatenate([states.q, states.p], axis=1))
    np.testing.assert_array_equal(states.z, flatten_tokens(states.tokens, True))


def test_an_export_is_loaded_like_the_run(workdir, encoder, tmp_path):
    export_run(workdir, tmp_path / "out")
    np.testing.assert_array_equal(hj.load(tmp_path / "out")(images(2)).z, encoder(images(2)).z)


def test_a_damaged_newest_checkpoint_is_stepped_over(workdir, encoder, tmp_path, caplog):
    shutil.copytree(workdir, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "5"
    shutil.copytree(tmp_path / "run" / "checkpoints" / "0", newest)
    for file in newest.rglob("d/*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    loaded = hj.load(tmp_path / "run")
    assert loaded.step == 0 and f"{newest} is damaged and was passed over" in caplog.text
    np.testing.assert_array_equal(loaded(images(1)).z, encoder(images(1)).z)
    with pytest.raises(UserError, match="no checkpoint there can be read"):
        hj.load(tmp_path / "run", step=5)


def test_any_number_of_images_and_one_program_for_each_power_of_two(workdir):
    encoder, many = hj.load(workdir), images(259)
    z = encoder(many).z
    assert encoder._encode._cache_size() == 2  # 256, and 3 as 4
    for n in (3, 4):
        np.testing.assert_allclose(encoder(many[:n]).z, z[:n], atol=1e-5)
    assert encoder._encode._cache_size() == 2
    encoder(many[:1])
    assert encoder._encode._cache_size() == 3


def test_bytes_and_floats_are_the_same_images(encoder):
    as_bytes = images(4)
    z = encoder(as_bytes).z
    for same in (as_bytes.astype(np.float32) / 255, jnp.asarray(as_bytes), list(as_bytes)):
        np.testing.assert_allclose(encoder(same).z, z, atol=1e-5)


def test_other_sizes_are_resized_and_cropped_as_in_evaluation(encoder):
    data, large = encoder.config.data, images(2, 20, 13)
    fitted = eval_images(jnp.asarray(large), size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1))
    np.testing.assert_allclose(encoder(large).z, encoder(fitted).z, atol=1e-5)
    assert data.eval_resize is None
    mixed = [images(1)[0], large[0], images(1, 8, 9)[0], large[1]]
    z = encoder(mixed).z
    for i, image in enumerate(mixed):
        np.testing.assert_allclose(z[i], encoder(image[None]).z[0], atol=1e-5)


def test_the_predictor_runs_both_ways(encoder):
    states = encoder(images(2))
    there = encoder.predict(states)
    assert not np.allclose(there, states.z)
    np.testing.assert_allclose(encoder.predict(there, -1), states.z, atol=1e-5)


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.zeros((8, 8, 3), np.uint8), r"image\[None\]"),
        (np.zeros((2, 8, 8, 1), np.uint8), r"\(2, 8, 8, 1\)"),
        (np.zeros((2, 8, 8, 3), np.int32), "int32"),
        (np.full((2, 8, 8, 3), 255.0, np.float32), "reach from 255 to 255"),
        (np.full((2, 8, 8, 3), np.nan, np.float32), "nan"),
        ([], "no images"),
    ],
)
def test_what_is_no_image_is_refused(bad, message, encoder):
    with pytest.raises(ValueError, match=message):
        encoder(bad)


def test_training_with_one_s_own_images_objective_and_metrics(tmp_path):
    from hamjepa_jax import objectives, rng
    from hamjepa_jax.train import train

    config, seen = tiny.quick(), []
    config.evaluate.every, config.evaluate.probe.epochs = "", 0
    labels = (np.arange(40) % 4).astype(np.int32)
    split = ArraySplit(images(40), labels, ("a", "b", "c", "d"))
    source = Source(name="own", train=split, test=split)

    def scattering(config, predictor):
        """Views of an image together, images apart: a kernel's mean over random directions of the states."""

        def loss(params, z, directions, epoch):
            together = objectives.lejepa_prediction(z, 2)
            apart = jnp.exp(-jnp.var(z @ directions, axis=1).mean())
            return together + apart, {"total": together + apart, "pred": together, "apart": apart}

        def draw(count):
            return objectives.unit_directions(rng.stream(config.seed, "own", count), 64, 8)

        return objectives.Objective(draw, 1, loss)

    result = train(
        config,
        tmp_path,
        source=source,
        objective=scattering,
        callbacks=[lambda step, state, metrics: seen.append((step, metrics["apart"]))],
    )
    assert result["step"] == 4 and [step for step, _ in seen] == [1, 2, 3, 4]
    assert all(0 < value < 1 for _, value in seen)
    z = hj.load(tmp_path)(source.test.images).z
    assert z.shape == (40, 64) and bool(jnp.isfinite(z).all())
    assert jax.tree.leaves(hj.load(tmp_path).params["encoder"])
