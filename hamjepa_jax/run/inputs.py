"""Where a run's batches come from: images on the devices, in host memory, or decoded as they are needed.

One class for each of data.store's choices, all of the same form: `views` and `abstract` need no images, `open`
loads them.
"""

import collections
import contextlib
import functools
import itertools
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from hamjepa_jax import build
from hamjepa_jax.data import (
    ArraySplit,
    DeviceStore,
    Split,
    check_host_memory,
    check_tfdata,
    default_cache_dir,
    eval_images,
    frames_of,
    gather,
    host_memory,
    index_batches,
    is_encoded,
    materialize,
    photometric_views,
    prefetch_to_device,
    rows_spread,
    stream_batches,
    tfdata_batches,
)
from hamjepa_jax.data.images.decode import is_fast
from hamjepa_jax.errors import UserError
from hamjepa_jax.training.mesh import batch_sharded, replicated
from hamjepa_jax.training.step import Reads

Array = jax.Array
ConfigDict = ml_collections.ConfigDict
IN_FLIGHT = 2  # Batches on their way to the devices.
TOGETHER = 16  # Batches of indices that are moved at once.
GB = 1e9  # bytes
log = logging.getLogger(__name__)


class Labelled(NamedTuple):
    """A store of a step that reads labels.

    Attributes:
      images: the store without them.
      labels: [n] int32, of all training images, whole on every device.
    """

    images: Any
    labels: Any


class Opened(NamedTuple):
    """Inputs with their images loaded.

    Attributes:
      store: on the devices; every step reads images from it. An empty tuple where the batches bring them. With the
        labels, if the step reads them: `Labelled`.
      batches: first step -> iterator over batches on the devices; close it.
      note: a line for the log, or "".
    """

    store: Any
    batches: Callable[[int], Iterator[Any]]
    note: str = ""

    @property
    def images(self) -> Any:
        """The store without labels."""
        return self.store.images if isinstance(self.store, Labelled) else self.store


class Inputs:
    """The training images of a run, as its step takes them."""

    def __init__(self, config: ConfigDict, split: Split, mesh: Mesh, *, labelled: bool = False):
        """Nothing is read yet.

        Args:
          config: of the run.
          split: the training images, or a stand-in without images.
          mesh: devices that share a batch.
          labelled: whether the step reads labels.
        """
        self.config, self.split, self.mesh, self.labelled = config, split, mesh, labelled
        self.specs = build.view_specs(config)

    def views(self, store: Any, batch: Any, epoch: Array, seed: int | Array | None = None) -> tuple[Array, ...]:
        """The views of each size, [b, v, h, w, 3] each; part of the step's program.

        Args:
          store: see `Opened`.
          batch: of the iterator that `Opened.batches` gives.
          epoch: counted from 0; may be traced.
          seed: in place of config.seed; may be traced.
        """
        raise NotImplementedError

    def gaps(self, batch: Any, epoch: Array, seed: int | Array | None = None) -> Array | None:
        """Frames from one view of each clip of a batch to the next, [b]; None of images. Arguments: `views`."""
        if frames_of(self.split) is None:
            return None
        return build.gaps_of(self.config, seed)(_indices(batch), epoch)

    def labels(self, store: Any, batch: Any) -> Array | None:
        """Classes [b] of a batch's examples; None if the step reads none."""
        return self.labels_of(store.labels, batch) if self.labelled else None

    def labels_of(self, labels: Array, batch: Any) -> Array:
        """Those [b] of a batch's examples, of `all_labels`. An image in a broken one's place has that one's."""
        return labels.at[_indices(batch)].get(mode="promise_in_bounds")

    def all_labels(self) -> Array:
        """[n] int32, of all training images, whole on every device."""
        labels = np.asarray(self.split.labels, np.int32)
        return jax.make_array_from_callback(labels.shape, replicated(self.mesh), lambda part: labels[part])

    def plain(self, store: Any, batch: Any) -> Array:
        """The images of a batch as they are evaluated, [b, h, w, 3]; of a stream their first crops, uncoloured."""
        c, images = self.config, self._plain(store.images if self.labelled else store, batch)
        side = c.data.image_size
        if c.data.eval_resize is None and images.shape[-3:-1] != (side, side):
            c = c.copy_and_resolve_references()
            c.data.eval_resize = side
        return build.eval_transform(c)(images)

    def _plain(self, store: Any, batch: Any) -> Array:
        raise NotImplementedError

    def reads(self, seed: int | Array | None = None) -> Reads:
        """What the step takes from store and batch; `seed` in place of config.seed may be traced."""
        views, gaps = functools.partial(self.views, seed=seed), functools.partial(self.gaps, seed=seed)
        return Reads(views, gaps, self.labels)

    def abstract(self) -> tuple[Any, Any]:
        """(store, batch) as shapes with shardings, without images."""
        store, batch = self._abstract()
        if not self.labelled:
            return store, batch
        labels = jax.ShapeDtypeStruct((len(self.split),), np.int32, sharding=replicated(self.mesh))
        return Labelled(store, labels), batch

    def _abstract(self) -> tuple[Any, Any]:
        raise NotImplementedError

    def open(self) -> Opened:
        """Reads, decodes or moves the images; logs if faster decoders could be installed.

        Raises:
          UserError: if the images exceed the memory budget, or they or the stream exceed the host's memory.
        """
        if is_encoded(self.split) and not is_fast():
            log.warning(
                "simplejpeg or cykooz_resizer is not installed, so Pillow decodes or resizes the images; "
                "pip install 'hamjepa-jax[fast]' makes that faster"
            )
        opened = self._open()
        if not self.labelled:
            return opened
        return opened._replace(store=Labelled(opened.store, self.all_labels()))

    def _open(self) -> Opened:
        raise NotImplementedError

    def _stored_shape(self) -> tuple[int, ...]:
        """Shape of an example as it is kept: (h, w, 3), or (T, h, w, 3) of a clip."""
        if not is_encoded(self.split):
            frames = frames_of(self.split)
            return (*(() if frames is None else (frames,)), *self.split.image_shape)
        side = self.config.data.stored_size or self.config.data.image_size
        return side, side, 3

    def _abstract_batch(self, *dims: int, dtype: Any = np.uint8) -> jax.ShapeDtypeStruct:
        k, b = self.config.train.steps_per_dispatch, self.config.train.batch_size
        dims = (b, *dims) if k == 1 else (k, b, *dims)
        return jax.ShapeDtypeStruct(dims, dtype, sharding=batch_sharded(self.mesh, axis=int(k > 1)))

    def _local_indices(self, first_step: int) -> Iterator[np.ndarray]:
        """This process's part of every batch's example indices."""
        c, n = self.config, len(self.split)
        size = c.train.batch_size // jax.process_count()
        part = slice(jax.process_index() * size, (jax.process_index() + 1) * size)
        for index in index_batches(c.seed, first_step, n=n, batch_size=c.train.batch_size):
            yield index[part]

    def _to_devices(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Batches on the devices, some ahead of time: [b, …] or, with k > 1 steps per dispatch, [k, b, …]."""
        k = self.config.train.steps_per_dispatch
        if k > 1:
            batches = _stacked(batches, k)
        return prefetch_to_device(batches, batch_sharded(self.mesh, axis=int(k > 1)), size=IN_FLIGHT)


class DeviceInputs(Inputs):
    """Images on the devices; a batch is the indices of its examples."""

    def views(self, store, batch, epoch, seed=None):
        images = store.images if self.labelled else store
        return build.build_views(self.config, self.mesh, seed)(images, batch, epoch)

    def _plain(self, store, batch):
        return gather(store, batch, self.mesh)

    def _abstract(self):
        shape = (rows_spread(len(self.split), self.mesh), *self._stored_shape())
        store = jax.ShapeDtypeStruct(shape, np.uint8, sharding=batch_sharded(self.mesh))
        return store, self._abstract_batch(dtype=np.int32)

    def _open(self):
        images = _in_memory(self.config, self.split, shares=self.mesh.size)
        store = DeviceStore(images, self.mesh, memory_budget_gb=self.config.data.memory_budget_gb)
        return Opened(store.images, self._indices_on_devices)

    def _indices_on_devices(self, first_step: int) -> Iterator[Array]:
        """Batches on the devices. They are small: each by itself would take longer than the rest of the loop."""
        axis, indices = 0, self._local_indices(first_step)
        if self.config.train.steps_per_dispatch > 1:
            axis, indices = 1, _stacked(indices, self.config.train.steps_per_dispatch)
        groups = prefetch_to_device(_stacked(indices, TOGETHER), batch_sharded(self.mesh, axis=axis + 1), size=1)
        split = jax.jit(tuple, out_shardings=(batch_sharded(self.mesh, axis=axis),) * TOGETHER)
        with contextlib.closing(groups):
            for group in groups:
                batches = collections.deque(split(group))
                while batches:  # A batch that was given is not kept.
                    yield batches.popleft()


class HostInputs(Inputs):
    """Images in host memory; a batch brings its images."""

    def views(self, store, batch, epoch, seed=None):
        return build.views_of(self.config, seed)(batch["image"], batch["index"], epoch)

    def _plain(self, store, batch):
        return batch["image"]

    def _abstract(self):
        image = self._abstract_batch(*self._stored_shape())
        return (), {"index": self._abstract_batch(dtype=np.int32), "image": image}

    def _open(self):
        if is_encoded(self.split) and self.config.data.stored_size:  # Before hours of decoding.
            _check_fits_host(len(self.split), len(self.split) * self.config.data.stored_size**2 * 3)
        stored = _in_memory(self.config, self.split, shares=1)
        note = f"images in host memory take {_check_fits_host(len(self.split), stored.images.nbytes)}"
        images = np.array(stored.images) if isinstance(stored.images, np.memmap) else stored.images

        def batches(first_step: int) -> Iterator[Any]:
            for index in self._local_indices(first_step):
                yield {"index": index, "image": images[index]}

        return Opened((), lambda first: self._to_devices(batches(first)), note)


class StreamInputs(Inputs):
    """Images read, decoded and cropped by threads or processes; a batch brings its crops."""

    def views(self, store, batch, epoch, seed=None):
        c = self.config
        return photometric_views(
            batch["crops"],
            batch["index"],
            seed=c.seed if seed is None else seed,
            epoch=epoch,
            specs=self.specs,
            mean=tuple(c.data.mean),
            std=tuple(c.data.std),
        )

    def plain(self, store, batch):
        c = self.config.data
        options = dict(size=c.image_size, resize=None, mean=tuple(c.mean), std=tuple(c.std))
        return eval_images(batch["crops"][0][:, 0], **options)

    def _abstract(self):
        crops = tuple(self._abstract_batch(count, spec.size, spec.size, 3) for spec, count in self.specs)
        return (), {"index": self._abstract_batch(dtype=np.int32), "crops": crops}

    def _open(self):
        c, batch_size = self.config.data, self.config.train.batch_size
        stream = functools.partial(stream_batches, num_workers=c.num_workers)
        if c.loader == "tfdata":
            check_tfdata(self.split)
            stream = tfdata_batches
        needed = host_memory(
            self.specs,
            local_batch=batch_size // jax.process_count(),
            num_threads=c.num_threads,
            num_workers=c.num_workers,
            in_flight=IN_FLIGHT * self.config.train.steps_per_dispatch,
        )

        def batches(first_step: int) -> Iterator[Any]:
            crops = stream(
                self.split,
                seed=self.config.seed,
                first_step=first_step,
                batch_size=batch_size,
                specs=self.specs,
                num_threads=c.num_threads,
                process_index=jax.process_index(),
                process_count=jax.process_count(),
                max_broken_share=c.max_broken_share,
            )
            return self._to_devices(crops)

        return Opened((), batches, f"streaming images takes {check_host_memory(needed)}")


STORES = {"device": DeviceInputs, "host": HostInputs, "stream": StreamInputs}


def inputs_of(config: ConfigDict, split: Split, mesh: Mesh, *, labelled: bool = False) -> Inputs:
    """The inputs that config.data.store asks for; with labels if the step reads them."""
    return STORES[config.data.store](config, split, mesh, labelled=labelled)


def _indices(batch: Any) -> Array:
    """Positions of a batch's examples."""
    return batch["index"] if isinstance(batch, dict) else batch


def _in_memory(config: ConfigDict, split: Split, *, shares: int) -> ArraySplit:
    """The split as arrays; files are decoded once, to be kept in so many equal shares."""
    c = config.data
    if not is_encoded(split):
        return split
    if c.stored_size is None:
        raise UserError(
            f"data.stored_size is not set: data.store={c.store!r} decodes {c.source!r} once to squares of one "
            f"size; give the side in pixels, or use data.store='stream'."
        )
    return materialize(
        split,
        size=c.stored_size,
        cache_dir=c.cache_dir or default_cache_dir(),
        budget_gb=c.memory_budget_gb,
        shares=shares,
        workers=c.num_workers or _cores(),  # Training has not begun: decoding has the machine to itself.
        max_broken_share=c.max_broken_share,
    )


def _cores() -> int:
    """CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # Not on this system.
        return os.cpu_count() or 1


def _check_fits_host(n: int, needed: int) -> str:
    """A line for the log, as of `check_host_memory`, about n images of `needed` bytes together.

    Raises:
      UserError: if the host has less memory than that.
    """
    try:
        return check_host_memory(needed)
    except UserError:
        raise UserError(
            f"data.store 'host': {n} images take {needed / GB:.2f} GB, more than the host's memory; choose smaller "
            f"images, or stream them (data.store='stream')."
        ) from None


def _stacked(batches: Iterator[Any], k: int) -> Iterator[Any]:
    while True:
        group = list(itertools.islice(batches, k))
        yield jax.tree.map(lambda *x: np.stack(x), *group)
