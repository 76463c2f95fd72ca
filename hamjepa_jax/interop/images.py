"""Images in the forms that users have them in, as arrays for an encoder."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hamjepa_jax.data import pixels_of
from hamjepa_jax.errors import UserError

Array = jax.Array | np.ndarray
EXPECTED = "expected images [n, h, w, 3], or a list of [h, w, 3]"
OPEN = "open files first, as PIL.Image.open(path) does"


def refuse_stacks(stack: int, where: Any) -> None:
    """Refuses an encoder whose views are several frames of a clip.

    Args:
      stack: views.stack of the run.
      where: its folder.

    Raises:
      UserError: if it is not 1.
    """
    if stack != 1:
        raise UserError(
            f"{where}: views.stack={stack}, so the encoder reads stacks of frames and no images; `evaluate "
            f"--trajectories` measures it, and `evaluate --export=DIR` writes its states."
        )


def as_arrays(images: Any) -> Array | list[Array]:
    """One array of images, or a list of single ones.

    Args:
      images: an array of NumPy, JAX or PyTorch; or a list of such arrays or of Pillow's images.

    Raises:
      ValueError: for anything else.
    """
    if isinstance(images, Image.Image):
        raise ValueError(f"{EXPECTED}, got a single image; give [image].")
    if hasattr(images, "shape"):
        return _as_array(images)
    if isinstance(images, str | bytes | Mapping) or not isinstance(images, Iterable):
        raise ValueError(f"{EXPECTED}, got {type(images).__name__}; {OPEN}.")
    found = [_as_array(image) for image in images]
    if not found:
        raise ValueError("the encoder got no images.")
    return found


def _as_array(image: Any) -> Array:
    if isinstance(image, jax.Array | np.ndarray):
        return image
    if isinstance(image, Image.Image):
        return pixels_of(image)
    if not hasattr(image, "__array__") and not isinstance(image, list | tuple):
        raise ValueError(f"{EXPECTED}, got {type(image).__name__}; {OPEN}.")
    if getattr(image, "requires_grad", False):
        raise ValueError("a tensor of PyTorch that requires gradients gets none from JAX; give images.detach().")
    try:
        return np.asarray(image.cpu() if hasattr(image, "cpu") else image)
    except (RuntimeError, TypeError, ValueError) as error:  # A type that NumPy lacks, rows of unequal lengths.
        raise ValueError(f"{EXPECTED}, got {type(image).__name__} ({' '.join(str(error).split())}).") from None


def check_images(images: Array) -> None:
    """Refuses arrays that are not a batch of images. The numbers in a traced array are not known, nor checked.

    Raises:
      ValueError: for another shape, another type, or floats outside [0, 1].
    """
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        hint = "; colours come last: images.transpose(0, 2, 3, 1)" * (len(shape) == 4 and shape[1] == 3)
        raise ValueError(f"expected images [n, h, w, 3] (for a single one, image[None]), got shape {shape}{hint}.")
    if images.dtype == np.uint8:
        return
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"expected images of type uint8, or float in [0, 1], got {images.dtype}.")
    if not isinstance(images, jax.core.Tracer) and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"float images must be in [0, 1] and not normalised; these reach from {float(images.min()):g} to "
            f"{float(images.max()):g}."
        )
