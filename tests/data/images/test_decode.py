"""Decoding and cropping on the host: as a viewer shows it, and within rounding of the golden crops."""

import io
import struct
import zlib

import numpy as np
import photos
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from hamjepa_jax.data import augment
from hamjepa_jax.data.images import decode
from hamjepa_jax.data.images.decode import BrokenImage


@pytest.fixture(params=["fast", "Pillow"])
def library(request, monkeypatch):
    """Runs the test with the fast libraries, and with Pillow alone."""
    if request.param == "Pillow":
        monkeypatch.setattr(decode, "simplejpeg", None)
        monkeypatch.setattr(decode, "cykooz_resizer", None)
    elif not decode.is_fast():
        pytest.skip("simplejpeg or cykooz_resizer is not installed")


def difference(a, b):
    return np.abs(np.asarray(a, int) - np.asarray(b, int))


# -- Crops ------------------------------------------------------------------------------------------------


def test_crops_are_the_golden_ones_within_rounding(library, goldens):
    golden = goldens("augmentation")
    cases = [name for name in golden if "resized_crop/" in name]
    assert len(cases) == 15
    for name in cases:
        kind, box, size = name.split("/")
        image = golden["small" if kind.startswith("small") else "image"]
        crop = decode.crop_and_resize(image, tuple(map(int, box.split("_"))), int(size))
        assert crop.shape == golden[name].shape and crop.dtype == np.uint8
        assert difference(crop, golden[name]).max() <= 1, name


def test_evaluation_squares_are_the_golden_ones_within_rounding(library, goldens):
    golden = goldens("augmentation")
    square = decode.resize_and_center_crop(golden["image"], 256, 224)
    assert difference(square, golden["eval/resize256_crop224"]).max() <= 1
    # The device's function agrees for sides that do not divide evenly, upright images and enlargements too.
    for height, width, resize, size in ((61, 37, 20, 17), (9, 14, 24, 24)):
        image = photos.picture(1, height, width)
        on_device = np.round(np.asarray(augment.resize_and_center_crop(image, resize, size)) * 255)
        assert difference(decode.resize_and_center_crop(image, resize, size), on_device).max() <= 1


def test_a_square_of_the_image_as_it_is():
    image = photos.picture(0, 10, 15)
    assert_array_equal(decode.resize_and_center_crop(image, None, 10), image[:, 2:12])
    with pytest.raises(ValueError, match="cannot cut 11 pixels out of a shorter side of 10"):
        decode.resize_and_center_crop(image, None, 11)


def test_crops_of_one_pixel_and_of_a_thread_of_pixels(library):
    assert_array_equal(
        decode.crop_and_resize(np.full((1, 1, 3), 7, np.uint8), (0, 0, 1, 1), 5), np.full((5, 5, 3), 7)
    )
    long = np.repeat(photos.picture(0, 1, 20000), 10, axis=0)
    assert decode.crop_and_resize(long, (0, 9000, 10, 13), 32).shape == (32, 32, 3)
    # An image like this would be 512,000 pixels wide if all of it were resized.
    square = decode.resize_and_center_crop(long, 256, 224)
    assert square.shape == (224, 224, 3)
    assert difference(square.mean((0, 1)), long[:, 9996:10004].mean((0, 1))).max() <= 2


def test_a_large_jpeg_is_decoded_smaller_with_little_difference(library):
    image = photos.picture(3, 400, 600)
    data, box = photos.encode(image), (21, 33, 340, 500)
    whole = decode.crop_and_resize(decode.decode(data), box, 32)
    (crop,) = decode.decode_crops(data, lambda h, w: [(box, 32)])
    assert difference(crop, whole).max() <= 2
    if decode.simplejpeg is not None:  # it really was decoded smaller: by 4, as 340 ≥ 4·2·32
        assert decode.simplejpeg.decode_jpeg(data, min_height=100, min_width=150).shape == (100, 150, 3)


def test_a_damaged_large_jpeg_that_pillow_can_show_keeps_its_crops_in_place(monkeypatch):
    image = photos.picture(3, 400, 600)
    data = photos.encode(image)
    if decode.simplejpeg is None:
        pytest.skip("simplejpeg is not installed")

    def refuse(*args, **kwargs):
        raise ValueError("damaged")

    monkeypatch.setattr(decode.simplejpeg, "decode_jpeg", refuse)
    box = (200, 300, 200, 300)
    (crop,) = decode.decode_crops(data, lambda h, w: [(box, 16)])
    assert difference(crop, decode.crop_and_resize(image, box, 16)).max() <= 4


# -- What a viewer shows ------------------------------------------------------------------------------------


def test_jpegs_are_decoded_as_pillow_does():
    for seed in range(3):
        data = photos.encode(photos.picture(seed, 33 + seed, 50))
        assert_array_equal(decode.decode(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_other_formats_are_decoded(library, kind):
    image = photos.picture(0)
    assert_array_equal(decode.decode(photos.encode(image, kind, lossless=True)), image)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_turned_pictures_are_turned_back(library, orientation, kind):
    image = Image.fromarray(photos.picture(0, 96, 144))
    exif = Image.Exif()
    exif[decode.ORIENTATION] = orientation
    data = photos.encode(image, kind, exif=exif.tobytes())
    image.getexif()[decode.ORIENTATION] = orientation
    expected = np.asarray(ImageOps.exif_transpose(image))
    decoded = decode.decode(data)
    assert decoded.shape == ((96, 144, 3) if orientation < 5 else (144, 96, 3))
    assert difference(decoded, expected).mean() < 4


def test_greyscale_cmyk_palettes_and_alpha_become_rgb(library):
    image = Image.fromarray(photos.picture(0))
    grey = np.asarray(image.convert("L"))
    for data in (photos.encode(image.convert("L")), photos.encode(image.convert("L"), "PNG")):
        assert difference(decode.decode(data), np.repeat(grey[..., None], 3, 2)).mean() < 1
    inks = image.convert("CMYK")
    assert difference(decode.decode(photos.encode(inks)), np.asarray(inks.convert("RGB"))).mean() < 3
    palette = image.quantize(16)
    assert_array_equal(decode.decode(photos.encode(palette, "PNG")), np.asarray(palette.convert("RGB")))
    clear = np.dstack([photos.picture(0), np.full((40, 56), 255, np.uint8)])
    clear[:20, :, 3] = 0
    shown = decode.decode(photos.encode(clear, "PNG"))
    assert (shown[:20] == 255).all()  # what is transparent is white, whatever colour hides there
    assert_array_equal(shown[20:], clear[20:, :, :3])


def test_sixteen_bits_are_scaled_not_cut_off(library):
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    decoded = decode.decode(photos.encode(Image.fromarray(ramp), "PNG"))
    assert_array_equal(decoded[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "the file is empty"),
        (b"this is no picture\n" * 20, "it is no JPEG, PNG or WebP"),
        (photos.encode(photos.picture(0, 200, 200))[:2000], "truncated"),
        (photos.encode(photos.picture(0, 200, 200), "PNG")[:2000], "."),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "."),
    ],
)
def test_what_is_no_whole_picture_is_broken(library, data, message):
    with pytest.raises(BrokenImage, match=message):
        decode.decode(data)
    with pytest.raises(BrokenImage, match=message):
        decode.decode_crops(data, lambda h, w: [((0, 0, h, w), 8)])


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_a_png_with_large_texts_or_profiles_is_no_broken_one():
    plain = photos.encode(photos.picture(3), "PNG")
    large = zlib.compress(bytes(3_000_000))
    for text in (
        chunk(b"zTXt", b"note\0\0" + large),
        chunk(b"iTXt", b"note\0\1\0\0\0" + large),
        chunk(b"iCCP", b"profile\0\0" + large),
    ):
        data = plain[:33] + text + plain[33:]  # after the signature and the first chunk
        assert_array_equal(decode.decode(data), photos.picture(3))
        with pytest.raises(BrokenImage):
            decode.decode(data[: len(data) - 60])
