"""A convolution whose gradient is fast on CPUs too.

XLA writes the gradient with respect to a kernel as a convolution with a kernel as large as the map. On CPUs that
takes up to thirty times as long as the convolution itself. Here it is a matrix product of patches, of a few images
at a time, so that the patches stay in the cache. Small convolutions keep XLA's, which compiles faster; so do GPUs,
TPUs and several CPU devices.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
SMALL = 2**29  # Multiplications of a convolution that is not worth the compilation.
PATCHES = 2**20  # Numbers in the patches of one product, or those of one image if they are more.


def convolution(x: Array, kernel: Array, strides: Any, padding: Any, *, precision: Any, **given: Any) -> Array:
    """What `flax.linen.Conv` takes in place of `jax.lax.conv_general_dilated`; for images, undilated, ungrouped.

    Where its gradient is by products, it can be differentiated in reverse mode alone.

    Args:
      x: [n, h, w, c].
      kernel: [kh, kw, c, k].
      strides: (of the rows, of the columns).
      padding: ((above, below), (left, right)).
      precision: of the products.
      **given: what Flax states besides, which describes these shapes.

    Returns:
      [n, h', w', k].
    """
    static = tuple(strides), tuple(map(tuple, padding)), precision
    result = jax.eval_shape(lambda x, kernel: _convolution(x, kernel, *static), x, kernel)
    multiplications = math.prod(result.shape) * math.prod(kernel.shape[:3])
    # A loop over images would gather them from the devices that hold them.
    fast = jax.device_count() == 1 and multiplications >= SMALL
    return (_fast_backwards if fast else _convolution)(x, kernel, *static)


def _convolution(x: Array, kernel: Array, strides: Any, padding: Any, precision: Any) -> Array:
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=order, precision=precision)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _fast_backwards(x: Array, kernel: Array, strides: Any, padding: Any, precision: Any) -> Array:
    return _convolution(x, kernel, strides, padding, precision)


def _forward(x: Array, kernel: Array, *static: Any) -> tuple[Array, tuple[Array, Array]]:
    return _convolution(x, kernel, *static), (x, kernel)


def _backward(strides: Any, padding: Any, precision: Any, kept: tuple[Array, Array], dy: Array) -> tuple:
    x, kernel = kept

    def of_kernel(x: Array, dy: Array) -> Array:
        return jax.vjp(lambda kernel: _convolution(x, kernel, strides, padding, precision), kernel)[1](dy)[0]

    def of_kernel_by_products(x: Array, dy: Array) -> Array:
        window = kernel.shape[:2]
        return kernel_gradient(x, dy, window, strides, padding, precision=precision).astype(kernel.dtype)

    (of_x,) = jax.vjp(lambda x: _convolution(x, kernel, strides, padding, precision), x)[1](dy)
    return of_x, lax.platform_dependent(x, dy, cpu=of_kernel_by_products, default=of_kernel)


_fast_backwards.defvjp(_forward, _backward)


def kernel_gradient(
    x: Array,
    dy: Array,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
    *,
    precision: Any = None,
) -> Array:
    """The gradient of a convolution with respect to its kernel: products of patches and the result's gradient.

    Args:
      x: [n, h, w, c], the images.
      dy: [n, h', w', k], the gradient with respect to the convolution's result.
      window: (kh, kw), the kernel's size.
      strides: (of the rows, of the columns).
      padding: ((above, below), (left, right)).
      precision: of the products.

    Returns:
      [kh, kw, c, k], summed in float32 or better.
    """
    n, rows, columns, features = dy.shape
    (height, width), channels = window, x.shape[-1]
    numbers = rows * columns * height * width * channels
    at_once = next(m for m in range(min(n, max(1, PATCHES // numbers)), 0, -1) if n % m == 0)
    dtype = jnp.promote_types(x.dtype, jnp.float32)

    def add(total: Array, of_images: tuple[Array, Array]) -> tuple[Array, None]:
        x, dy = of_images
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
        shifted = [_every(x, 2, j, columns, strides[1]) for j in range(width)]
        wide = jnp.concatenate(shifted, axis=-1)  # Patches of one row: [m, rows of x, w', kw·c].
        over = (((0, 1, 2), (0, 1, 2)), ((), ()))
        products = [
            lax.dot_general(
                _every(wide, 1, i, rows, strides[0]), dy, over, precision=precision, preferred_element_type=dtype
            )
            for i in range(height)
        ]
        return total + jnp.stack(products), None

    chunks = jax.tree.map(lambda a: a.reshape(n // at_once, at_once, *a.shape[1:]), (x, dy))
    total, _ = lax.scan(add, jnp.zeros((height, width * channels, features), dtype), chunks)
    return total.reshape(height, width, channels, features)


def _every(x: Array, axis: int, start: int, count: int, stride: int) -> Array:
    """`count` of the entries along an axis, `stride` apart."""
    return lax.slice_in_dim(x, start, start + stride * (count - 1) + 1, stride, axis)
