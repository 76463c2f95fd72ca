"""The trained encoder as a function: it has real gradients, can be traced, and equals its exported program."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import golden_random
from PIL import Image

import hamjepa_jax as hj
from hamjepa_jax.data import augment, eval_images
from hamjepa_jax.interop.export import export_run
from hamjepa_jax.interop.workdirs import fresh_state, write_workdir


def write_run(folder, eval_resize):
    config = tiny.get_config()
    config.data.eval_resize = eval_resize
    write_workdir(folder, config, fresh_state(config), {"file": "none"})
    return folder


@pytest.fixture(
    scope="module",
    params=[None, *(pytest.param(size, marks=pytest.mark.slow) for size in (8, 11))],
    ids=lambda resize: f"resize{resize}",
)
def workdir(request, tmp_path_factory):
    """A run whose evaluation takes images as they are, resizes them to their own size, or zooms in."""
    return write_run(tmp_path_factory.mktemp("runs") / "run", request.param)


@pytest.fixture(scope="module")
def encoder(workdir):
    return hj.load(workdir)


@pytest.fixture(scope="module")
def resizing(tmp_path_factory):
    """An encoder whose evaluation resizes."""
    return hj.load(write_run(tmp_path_factory.mktemp("runs") / "run", 11))


def floats(n, height=8, width=8):
    return np.random.default_rng(n).uniform(0.1, 0.9, (n, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("shape", [pytest.param((8, 8), marks=pytest.mark.slow), (13, 20)])
def test_gradients_with_respect_to_float_images_are_real(encoder, shape):
    images = jnp.asarray(floats(2, *shape))
    weights = jnp.asarray(golden_random("encoder.cotangent", 2, 64), jnp.float32)
    along = jnp.asarray(golden_random("encoder.direction", *images.shape), jnp.float32)

    def value(x):
        return jnp.sum(weights * encoder(x).z)

    # ReLUs bend on the way, so the difference is compared with the mean of very many slopes.
    step, places = 0.02, (jnp.arange(256) + 0.5) / 256 - 0.5
    slopes = jax.lax.map(lambda t: jnp.vdot(jax.grad(value)(images + t * step * along), along), places)
    difference = float(value(images + 0.5 * step * along) - value(images - 0.5 * step * along)) / step
    assert abs(difference) > 0.5 and float(slopes.mean()) == pytest.approx(difference, rel=0.03)


@pytest.mark.slow
def test_the_evaluation_resize_of_floats_is_linear_and_near_that_of_bytes(x64):
    rng = np.random.default_rng(0)
    as_bytes = jnp.asarray(rng.integers(0, 256, (3, 13, 20, 3), np.uint8))

    def resize(x):
        return eval_images(x, size=8, resize=11, mean=(0, 0, 0), std=(1, 1, 1))

    exact = resize(as_bytes / 255.0)
    np.testing.assert_allclose(resize(as_bytes), exact, atol=1.01 / 255)  # two roundings of half a level
    assert np.abs(resize(as_bytes) - exact).max() > 1e-4
    one, other = (jnp.asarray(rng.uniform(size=(3, 13, 20, 3)), jnp.float32) for _ in range(2))
    np.testing.assert_allclose(
        resize(0.25 * one + 0.75 * other), 0.25 * resize(one) + 0.75 * resize(other), atol=1e-6
    )
    np.testing.assert_allclose(resize(jnp.ones((1, 13, 20, 3))), 1.0, atol=1e-4)  # weights in multiples of 1/65536
    levels = augment.resize_and_center_crop(one[0], 11, 8) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)  # the operation of the views rounds as before


def test_the_exported_program_equals_the_encoder_on_floats(workdir, encoder, tmp_path):
    export_run(workdir, tmp_path / "out")
    program = jax.export.deserialize(bytearray((tmp_path / "out" / "encoder.stablehlo").read_bytes()))
    images = floats(3)
    want = encoder(images).z
    np.testing.assert_allclose(program.call(jnp.asarray(images)), want, atol=1e-5 * np.abs(want).max())
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("cuts out the central 8" in card) == (encoder.config.data.eval_resize is not None)


def test_it_can_be_traced_in_every_way(encoder):
    images = jnp.asarray(floats(4))
    want = encoder(images).z
    same = lambda found: np.testing.assert_allclose(found, want, atol=1e-5)  # noqa: E731
    same(jax.jit(lambda x: encoder(x).z)(images))
    same(jax.jit(encoder)(images).z)
    same(jax.vmap(lambda x: encoder(x[None]).z[0])(images))
    same(jax.lax.map(lambda x: encoder(x[None]).z[0], images))
    same(jax.jit(lambda x: encoder(list(x)).z)(images))
    assert jax.eval_shape(encoder, jax.ShapeDtypeStruct((300, 8, 8, 3), jnp.float32)).z.shape == (300, 64)
    _, slope = jax.jvp(lambda x: encoder(x).z, (images,), (jnp.ones_like(images),))
    assert float(jnp.abs(slope).max()) > 0
    assert jax.jit(encoder)(jnp.zeros((2, 8, 8, 3), jnp.uint8)).z.shape == (2, 64)


def test_shapes_and_types_are_checked_in_traced_images_too(encoder):
    for image, message in [
        (jnp.zeros((8, 8, 3)), r"image\[None\]"),
        (jnp.zeros((2, 8, 8, 3), jnp.int32), "int32"),
        (jnp.zeros((2, 3, 8, 8)), r"\(2, 3, 8, 8\); colours come last"),
    ]:
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(encoder, image)


def test_images_of_pillow_are_read_as_decoded_files_are(resizing):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    grey = Image.fromarray(pixels[..., 0])
    found = resizing([Image.fromarray(pixels), grey, Image.fromarray(pixels).convert("RGBA")]).z
    want = resizing([pixels, np.repeat(pixels[..., :1], 3, axis=-1), pixels]).z
    np.testing.assert_allclose(found, want, atol=1e-5)
    with pytest.raises(ValueError, match=r"a single image; give \[image\]"):
        resizing(grey)


@pytest.mark.parametrize(
    "bad", ["photo.png", b"bytes", 7, None, {"images": 1}, ["photo.png"], [None], [[[0.5, 0.5], [0.5]]]]
)
def test_other_objects_are_refused_in_a_sentence(bad, resizing):
    with pytest.raises(ValueError, match=r"expected images \[n, h, w, 3\]"):
        resizing(bad)


def test_predictions_of_other_states_and_directions_are_refused(resizing):
    with pytest.raises(ValueError, match=r"expected states \[\.\.\., 64\], got shape \(2, 3\)"):
        resizing.predict(np.zeros((2, 3)))
    for direction in (0, 0.5, 2, None, "1"):
        with pytest.raises(ValueError, match="direction must be 1 or -1"):
            resizing.predict(np.zeros((2, 64)), direction)


def test_tensors_of_pytorch_are_read_or_refused(resizing):
    torch = pytest.importorskip("torch")
    images = floats(2, 9, 12)
    want = resizing(images).z
    tensor = torch.from_numpy(images)
    np.testing.assert_array_equal(resizing(tensor).z, want)
    np.testing.assert_allclose(resizing(list(tensor)).z, want, atol=1e-5)
    as_bytes = (images * 255).astype(np.uint8)
    np.testing.assert_array_equal(resizing(torch.from_numpy(as_bytes)).z, resizing(as_bytes).z)
    for bad, message in [
        (tensor.permute(0, 3, 1, 2), "colours come last"),
        (tensor[0], r"image\[None\]"),
        (tensor.bfloat16(), r"Tensor \(.*BFloat16"),
        (tensor.clone().requires_grad_(), r"give images\.detach\(\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            resizing(bad)


@pytest.mark.slow
def test_loading_prints_nothing(workdir, tmp_path):
    export_run(workdir, tmp_path / "out")
    code = (
        "import sys, numpy as np, hamjepa_jax as hj\n"
        "for path in sys.argv[1:]: hj.load(path)(np.zeros((2, 8, 8, 3), np.uint8))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(workdir), str(tmp_path / "out")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == done.stderr == ""
