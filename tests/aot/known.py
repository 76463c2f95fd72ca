"""Programs whose memory traffic is known, and the texts that a TPU compiler (libtpu 0.0.42.1, v5e) made of them.

The texts, in programs/, are without metadata and names of files; of a backend_config only the estimate is kept.
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hamjepa_jax.aot.hlo import Program, parse

SIDE = 8192
SQUARE, BFLOAT16 = (((SIDE, SIDE), jnp.float32),), jnp.bfloat16


class Known(NamedTuple):
    function: Callable
    arguments: tuple  # of (shape, dtype)
    bytes: int
    donated: tuple[int, ...] = ()


def convolution(x, w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


KNOWN = {
    "copy": Known(jnp.copy, SQUARE, 2 * SIDE**2 * 4),
    "chain": Known(lambda x: jnp.tanh(jnp.sin(x) * 2 + 1) / 3, SQUARE, 2 * SIDE**2 * 4),
    "sgd": Known(lambda x, g: x - 0.1 * g, SQUARE * 2, 3 * SIDE**2 * 4, donated=(0,)),
    "matmul": Known(jnp.matmul, (((SIDE, SIDE), BFLOAT16),) * 2, 3 * SIDE**2 * 2),
    "slice": Known(lambda x: jax.lax.dynamic_slice(x, (8, 0), (1024, SIDE)) * 2, SQUARE, 2 * 1024 * SIDE * 4),
    # In place: only the rows that are new move.
    "update": Known(
        lambda x, u: jax.lax.dynamic_update_slice(x, u, (3, 0)),
        (*SQUARE, ((8, SIDE), jnp.float32)),
        2 * 8 * SIDE * 4,
        donated=(0,),
    ),
    # 128 rows of bytes and their numbers in, float32 out: not the 50,000 rows.
    "gather": Known(
        lambda x, i: x[i].astype(jnp.float32) * 2,
        (((50_000, 3072), jnp.uint8), ((128,), jnp.int32)),
        128 * 3072 * (1 + 4) + 128 * 4,
    ),
    # What lies between the products stays on the chip.
    "mlp": Known(
        lambda x, v, w: jax.nn.relu(x @ v) @ w,
        (((512, 4096), BFLOAT16), ((4096, 4096), BFLOAT16), ((4096, 4096), BFLOAT16)),
        2 * (2 * 4096**2 + 2 * 512 * 4096),
    ),
    # The twelve products are on the chip, and the images come in four slices.
    "scan": Known(
        lambda x, ws: jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, ws)[0],
        (((256, 1024), jnp.float32), ((12, 1024, 1024), jnp.float32)),
        4 * (2 * 256 * 1024 + 12 * 1024**2),
    ),
    # The kernel's 64 output channels are padded to 128.
    "conv64": Known(
        convolution,
        (((128, 32, 32, 64), BFLOAT16), ((3, 3, 64, 64), BFLOAT16)),
        2 * (2 * 128 * 32 * 32 * 64 + 9 * 64 * 128),
    ),
}


def program(name: str) -> Program:
    return parse((pathlib.Path(__file__).parent / "programs" / f"{name}.txt").read_text())
