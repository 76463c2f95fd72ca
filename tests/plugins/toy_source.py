"""Noise on two grey levels, as a source."""

import numpy as np

from hamjepa_jax.data import ArraySplit, Source
from hamjepa_jax.parts import sources


@sources.register("toy_noise", form="toy_noise:N", meaning="N training images of two classes.")
def toy_noise(rest, options):
    def split(n, seed):
        labels = (np.arange(n) % 2).astype(np.int32)
        noise = np.random.default_rng(seed).integers(0, 100, (n, 8, 8, 3), np.uint8)
        return ArraySplit(noise + (100 * labels).astype(np.uint8)[:, None, None, None], labels, ("dark", "bright"))

    return Source("toy_noise", split(int(rest), 0), split(24, 1))
