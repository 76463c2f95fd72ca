"""Test set-up: eight fake CPU devices and strict array promotion, set before JAX starts."""

import os
import pathlib
import zlib

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

GOLDENS = pathlib.Path(__file__).parent / "goldens"


def golden_random(name: str, *shape: int) -> np.ndarray:
    """Standard normal float64 array of the golden files' rule: the generator is seeded with crc32 of the name."""
    return np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).randn(*shape)


@pytest.fixture(scope="session")
def goldens():
    """Returns load(name) -> dict of arrays of tests/goldens/<name>.npz."""

    def load(name):
        with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as z:
            return {k: z[k] for k in z.files}

    return load


@pytest.fixture
def x64():
    """Runs the test in double precision."""
    with jax.enable_x64(True):
        yield
