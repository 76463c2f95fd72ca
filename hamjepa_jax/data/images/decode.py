"""Encoded images (JPEG, PNG, WebP) to RGB arrays, crops and evaluation squares, on the host.

The fast way is libjpeg-turbo (simplejpeg) and a vectorised resize (cykooz_resizer); where either is absent, or a
file is not a plain JPEG, Pillow does the same. Both resize with the triangle filter of `augment.resized_crop` and
agree with it to within one level of rounding.
"""

import contextlib
import io
import math
import threading
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

try:
    import simplejpeg
except ImportError:
    simplejpeg = None
try:
    import cykooz_resizer
except ImportError:
    cykooz_resizer = None

Image.init()  # Pillow loads its readers late, and some not at all when it is told which formats to expect.
FORMATS = ("JPEG", "PNG", "WEBP")
ORIENTATION = 0x0112  # EXIF tag
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # Kinds of chunks.
PLAIN_JPEG = ("YCbCr", "Gray")
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if every crop is then still this many times its final size. The
# decoder's own averaging then changes the crop little (0.3 levels in the mean).
REDUCING_GAP = 2.0

Box = tuple[float, float, float, float]  # top, left, height, width in pixels
_local = threading.local()


class BrokenImage(Exception):
    """The image cannot be decoded as a whole; the message says why."""


def decode(data: bytes) -> np.ndarray:
    """The image as a viewer shows it: [h, w, 3] uint8 RGB.

    EXIF orientation is applied, transparency is laid over white, 16-bit values are scaled to 8 bits, greyscale,
    palettes and CMYK are converted; colour profiles are ignored; of an animation the first picture is taken.

    Raises:
      BrokenImage: if the data are no JPEG, PNG or WebP, or end too early.
    """
    size = _plain_jpeg_size(data)
    return _decode_slowly(data) if size is None else _decode_jpeg(data, size, None)


def decode_crops(data: bytes, draw: Callable[[int, int], list[tuple[Box, int]]]) -> list[np.ndarray]:
    """Decodes an image once and cuts crops out of it.

    Args:
      data: the encoded image.
      draw: (height, width) of the image -> the crops' boxes and sides.

    Returns:
      The crops [side, side, 3] uint8. Of a JPEG many times larger than its crops (see REDUCING_GAP) they differ
      from those of the fully decoded image by 0.3 levels in the mean.

    Raises:
      BrokenImage: see `decode`.
    """
    image, crops = decode_for_crops(data, draw)
    return [crop_and_resize(image, box, side) for box, side in crops]


def decode_for_crops(
    data: bytes, draw: Callable[[int, int], list[tuple[Box, int]]]
) -> tuple[np.ndarray, list[tuple[Box, int]]]:
    """The image as `decode_crops` decodes it, perhaps reduced, and the boxes in its pixels with their sides.

    The image's memory is used again by this thread's next call.
    """
    size = _plain_jpeg_size(data)
    if size is None:
        image = _decode_slowly(data)
        return image, draw(*image.shape[:2])
    crops = draw(*size)
    spare = min(min(box[2:]) / side for box, side in crops)
    reduction = next((k for k in (8, 4, 2) if spare >= k * REDUCING_GAP), 1)
    reduced = tuple(-(-x // reduction) for x in size)
    image = _decode_jpeg(data, reduced, _pixel_buffer(math.prod(reduced) * 3))
    if image.shape[:2] == size:  # not reduced, perhaps because the slow way had to help
        reduction = 1
    return image, [(tuple(x / reduction for x in box), side) for box, side in crops]


def crop_and_resize(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Cuts a box out and resizes it, bilinear with antialiasing, as `augment.resized_crop` does on the device.

    Args:
      image: [h, w, 3] uint8.
      box: (top, left, height, width) in pixels, inside the image and not empty; fractions of pixels are kept.
      size: side of the result.

    Returns:
      [size, size, 3] uint8.
    """
    top, left, height, width = box
    y, x = math.floor(top), math.floor(left)
    part = image[y : math.ceil(top + height), x : math.ceil(left + width)]
    return _resize(part, (top - y, left - x, height, width), size)


def resize_and_center_crop(image: np.ndarray, resize: int | None, size: int) -> np.ndarray:
    """Shorter side to `resize`, then the central square: `augment.resize_and_center_crop` on the host.

    Only the square's pixels are computed, so an image of any aspect is cheap.

    Args:
      image: [h, w, 3] uint8.
      resize: shorter side after resizing, at least `size`; None leaves the image as it is.
      size: side of the square.

    Raises:
      ValueError: if the square is larger than the resized image.
    """
    shorter = min(image.shape[:2])
    if size > (resize or shorter):
        raise ValueError(f"cannot cut {size} pixels out of a shorter side of {resize or shorter}.")
    if resize is None:
        resize = shorter
    sides = []
    for extent in image.shape[:2]:
        resized = resize * extent // shorter
        scale = extent / resized
        sides.append((round((resized - size) / 2) * scale, size * scale))
    (top, height), (left, width) = sides
    if resize == shorter:
        return np.ascontiguousarray(image[int(top) : int(top) + size, int(left) : int(left) + size])
    return _resize(image, (top, left, height, width), size)


def is_fast() -> bool:
    """Whether both fast libraries are there."""
    return simplejpeg is not None and cykooz_resizer is not None


# -- Decoding ---------------------------------------------------------------------------------------------


def _plain_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG that the fast decoder shows as a viewer does; None for everything else."""
    if simplejpeg is None or not data.startswith(b"\xff\xd8"):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if space not in PLAIN_JPEG or (_has_exif(data) and _is_turned(data)):
        return None
    return height, width


def _has_exif(data: bytes) -> bool:
    """Whether an EXIF block is among the segments before the picture."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        if data[at + 1] == 0xE1 and data[at + 4 : at + 8] == b"Exif":
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _is_turned(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.getexif().get(ORIENTATION, 1) != 1
    except Exception:  # Damaged EXIF blocks raise errors of all kinds; the slow way decides.
        return True


def _decode_jpeg(data: bytes, size: tuple[int, int], buffer: np.ndarray | None) -> np.ndarray:
    """A plain JPEG, at the smallest scale whose height and width are at least `size`, into the buffer if given."""
    try:
        return simplejpeg.decode_jpeg(data, min_height=size[0], min_width=size[1], buffer=buffer)
    except ValueError:  # Damaged, but perhaps so little that Pillow (and a viewer) still shows it.
        return _decode_slowly(data)


def _pixel_buffer(size: int) -> np.ndarray:
    """Memory of this thread that is used again and again: fresh pages would cost a tenth of the decoding."""
    if getattr(_local, "pixels", None) is None or len(_local.pixels) < size:
        _local.pixels = np.empty(size, np.uint8)
    return _local.pixels


def _decode_slowly(data: bytes) -> np.ndarray:
    try:
        return _by_pillow(data)
    except Exception as error:  # Pillow's readers raise errors of many kinds on damaged files.
        pixels = _without_texts(data)
        if pixels is not None:  # Pillow refuses large texts and colour profiles, which are not needed.
            with contextlib.suppress(Exception):
                return _by_pillow(pixels)
        raise BrokenImage(_reason(data, error)) from error


def _by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        return pixels_of(image)


def pixels_of(image: Image.Image) -> np.ndarray:
    """[h, w, 3] uint8 of an image of Pillow's, turned as its EXIF block says; what is transparent is white."""
    return np.asarray(_as_rgb(ImageOps.exif_transpose(image)))


def _without_texts(data: bytes) -> bytes | None:
    """A PNG without its texts and colour profile; None if it has none of them or is no PNG."""
    if not data.startswith(PNG_SIGNATURE):
        return None
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        # A chunk has 4 bytes of length, 4 of its kind, the content, and 4 of its checksum.
        stop = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] not in PNG_TEXTS:
            kept.append(data[at:stop])
        at = stop
    shorter = b"".join(kept)
    return shorter if len(shorter) < len(data) else None


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no JPEG, PNG or WebP"
    return str(error) or type(error).__name__


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):  # 16 bits of grey, which Pillow's conversion would cut off
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


# -- Resizing -----------------------------------------------------------------------------------------------


def _resize(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    top, left, height, width = box
    if cykooz_resizer is None:
        resized = Image.fromarray(image).resize(
            (size, size), Image.Resampling.BILINEAR, box=_within(image, left, top, left + width, top + height)
        )
        return np.asarray(resized)
    kind = cykooz_resizer.PixelType.U8x3
    if not hasattr(_local, "resizer"):  # both keep their memory, and are not to be shared between threads
        _local.resizer, _local.targets = cykooz_resizer.Resizer(), {}
    if size not in _local.targets:
        _local.targets[size] = cykooz_resizer.ImageData(size, size, kind)
    source = cykooz_resizer.ImageData(image.shape[1], image.shape[0], kind, image.tobytes())
    left, top, right, bottom = _within(image, left, top, left + width, top + height)
    options = cykooz_resizer.ResizeOptions(
        resize_alg=cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.bilinear),
        use_alpha=False,
        crop_box=cykooz_resizer.CropBox(left, top, right - left, bottom - top),
    )
    _local.resizer.resize(source, _local.targets[size], options)
    return np.frombuffer(_local.targets[size].get_buffer(), np.uint8).reshape(size, size, 3)


def _within(image: np.ndarray, left: float, top: float, right: float, bottom: float) -> Box:
    """The box cut to the image: the libraries refuse a box that rounding put outside."""
    height, width = image.shape[:2]
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
