"""States of random views of test images: several of each image, for measures that take an image for a class."""

import os
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hamjepa_jax import build
from hamjepa_jax.data import Split, permutation, photometric_views, view_crops
from hamjepa_jax.training.state import TrainState

ConfigDict = ml_collections.ConfigDict


class RandomViews:
    """Draws and encodes the views that config.evaluate.lidar asks for: the same ones at every call."""

    def __init__(self, config: ConfigDict, model: build.Model, split: Split, mesh: Mesh):
        """Nothing is computed yet.

        Args:
          config: of the run; views are global ones by its augmentation.
          model: the networks.
          split: the test images.
          mesh: devices to spread the work over.
        """
        self._config, self._split, self._mesh = config, split, mesh
        self._count, self._views = min(config.evaluate.lidar.images, len(split)), config.evaluate.lidar.views
        self._spec = build.view_specs(config)[0][0]

        def encode(params: Any, batch_stats: Any, index: jax.Array, crops: jax.Array) -> jax.Array:
            seen = self._finished(index, crops)
            z = model.features(params, batch_stats, seen.reshape(-1, *seen.shape[2:]))
            return z.reshape(*seen.shape[:2], -1)

        self._encode = jax.jit(encode, out_shardings=NamedSharding(mesh, PartitionSpec()))

    @property
    def asked_for(self) -> bool:
        """Whether there are any; one image alone says nothing."""
        return self._count >= 2

    def states(self, state: TrainState) -> np.ndarray:
        """[n, v, K] float32: v random views of each of n images of the test split."""
        size, networks = self._images_in_a_batch(), state.evaluated(teacher=self._config.evaluate.teacher)
        found = []
        for index, crops in self._crops(size):
            count, fill = len(index), ((0, size - len(index)),)
            index = self._spread(np.pad(index, fill, mode="edge"))
            crops = self._spread(np.pad(crops, fill + ((0, 0),) * 4, mode="edge"))
            found.append(
                np.asarray(self._encode(networks["params"], networks["batch_stats"], index, crops))[:count]
            )
        return np.concatenate(found)

    def images(self, count: int) -> np.ndarray:
        """[count, v, size, size, 3] uint8: the views of the first of these images, to be looked at."""
        data = self._config.data
        mean, std = np.asarray(data.mean, np.float32), np.asarray(data.std, np.float32)
        seen = self._finished(*next(self._crops(min(count, self._count))))
        return np.clip((np.asarray(seen) * std + mean) * 255 + 0.5, 0, 255).astype(np.uint8)

    def _finished(self, index: jax.Array | np.ndarray, crops: jax.Array | np.ndarray) -> jax.Array:
        """Crops [b, v, size, size, 3] as normalised views, by the photometry of epoch 0."""
        data = self._config.data
        options = dict(seed=self._config.seed, epoch=0, mean=tuple(data.mean), std=tuple(data.std))
        return photometric_views((crops,), index, specs=((self._spec, self._views),), **options)[0]

    def _crops(self, images: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rows = np.sort(permutation(self._config.seed, 0, len(self._split))[: self._count])
        threads = min(16, os.cpu_count() or 1)
        seed = self._config.seed
        return view_crops(self._split, rows, self._spec, self._views, seed=seed, images=images, num_threads=threads)

    def _images_in_a_batch(self) -> int:
        """As many as make up a batch of the evaluation, and a multiple of the devices."""
        images = max(1, min(self._count, self._config.evaluate.batch_size // self._views))
        return -(-images // self._mesh.size) * self._mesh.size

    def _spread(self, x: np.ndarray) -> jax.Array:
        sharding = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
