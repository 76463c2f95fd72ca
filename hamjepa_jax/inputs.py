"""Where a run's batches come from: images on the devices, in host memory, or decoded as they are needed."""

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
    host_memory,
    index_batches,
    is_encoded,
    make_views,
    materialize,
    photometric_views,
    prefetch_to_device,
    rows_spread,
    stream_batches,
    tfdata_batches,
)
from hamjepa_jax.data.images.decode import is_fast
from hamjepa_jax.errors import UserError
from hamjepa_jax.training.mesh import batch_sharded

ConfigDict = ml_collections.ConfigDict
IN_FLIGHT = 2  # batches on their way to the devices
GB = 1e9  # bytes
log = logging.getLogger(__name__)


class Inputs(NamedTuple):
    """The training images of a run, as the step takes them.

    Attributes:
      store: what every step reads images from, on the devices; an empty tuple where the batches bring them.
      views: (store, batch, epoch) -> the views of each size, [b, v, h, w, 3] each; part of the step's program.
      batches: first step -> iterator over batches on the devices; close it.
      note: a line for the log, or "".
    """

    store: Any
    views: Callable[[Any, Any, jax.Array], tuple[jax.Array, ...]]
    batches: Callable[[int], Iterator[Any]]
    note: str = ""


def open_inputs(config: ConfigDict, split: Split, mesh: Mesh) -> Inputs:
    """The inputs that config.data.store asks for, "device", "host" or "stream".

    Raises:
      UserError: if the images do not fit the memory budget, or they or the pipeline the host's memory.
    """
    if is_encoded(split) and not is_fast():
        log.warning(
            "simplejpeg or cykooz_resizer is not installed, so Pillow decodes or resizes the images; "
            "pip install -e '.[fast]' makes that about twice as fast"
        )
    views = views_for(config, mesh)
    if config.data.store == "stream":
        return _streamed(config, split, mesh, views)
    stored = _in_memory(config, split, mesh)
    if config.data.store == "host":
        note = f"images in host memory take {_check_fits_host(len(split), stored.images.nbytes)}"
        images = np.array(stored.images) if isinstance(stored.images, np.memmap) else stored.images

        def host_batches(first_step: int) -> Iterator[Any]:
            for index in _local_indices(config, len(split), first_step):
                yield {"index": index, "image": images[index]}

        return Inputs((), views, lambda first: _to_devices(config, host_batches(first), mesh), note)

    store = DeviceStore(stored, mesh, memory_budget_gb=config.data.memory_budget_gb)
    return Inputs(
        store.images, views, lambda first: _to_devices(config, _local_indices(config, len(split), first), mesh)
    )


def views_for(config: ConfigDict, mesh: Mesh) -> Callable[[Any, Any, jax.Array], tuple[jax.Array, ...]]:
    """The `views` of `Inputs` for config.data.store."""
    options = dict(
        seed=config.seed, specs=build.view_specs(config), mean=tuple(config.data.mean), std=tuple(config.data.std)
    )
    if config.data.store == "device":
        return build.build_views(config, mesh)
    if config.data.store == "host":
        return lambda store, batch, epoch: make_views(batch["image"], batch["index"], epoch=epoch, **options)
    return lambda store, batch, epoch: photometric_views(batch["crops"], batch["index"], epoch=epoch, **options)


def abstract_inputs(config: ConfigDict, shape: tuple[int, int, int], mesh: Mesh) -> tuple[Any, Any]:
    """(store, batch) that the step takes, as shapes with shardings: what `open_inputs` gives, without images.

    Args:
      config: of the run.
      shape: (n, height, width) of the training images as they are stored; a stream uses none of it.
      mesh: devices that share a batch.
    """
    k, b = config.train.steps_per_dispatch, config.train.batch_size
    n, *sides = shape

    def batched(*dims: int, dtype=np.uint8) -> jax.ShapeDtypeStruct:
        dims = (b, *dims) if k == 1 else (k, b, *dims)
        return jax.ShapeDtypeStruct(dims, dtype, sharding=batch_sharded(mesh, axis=int(k > 1)))

    index = batched(dtype=np.int32)
    if config.data.store == "device":
        shape = (rows_spread(n, mesh), *sides, 3)
        return jax.ShapeDtypeStruct(shape, np.uint8, sharding=batch_sharded(mesh)), index
    if config.data.store == "host":
        return (), {"index": index, "image": batched(*sides, 3)}
    crops = tuple(batched(count, spec.size, spec.size, 3) for spec, count in build.view_specs(config))
    return (), {"index": index, "crops": crops}


def _streamed(config: ConfigDict, split: Split, mesh: Mesh, views: Callable) -> Inputs:
    c, specs = config.data, build.view_specs(config)
    stream = functools.partial(stream_batches, num_workers=c.num_workers)
    if c.loader == "tfdata":
        check_tfdata(split)
        stream = tfdata_batches
    needed = host_memory(
        specs,
        local_batch=config.train.batch_size // jax.process_count(),
        num_threads=c.num_threads,
        num_workers=c.num_workers,
        in_flight=IN_FLIGHT * config.train.steps_per_dispatch,
    )

    def batches(first_step: int) -> Iterator[Any]:
        crops = stream(
            split,
            seed=config.seed,
            first_step=first_step,
            batch_size=config.train.batch_size,
            specs=specs,
            num_threads=c.num_threads,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            max_broken_share=c.max_broken_share,
        )
        return _to_devices(config, crops, mesh)

    return Inputs((), views, batches, f"streaming images takes {check_host_memory(needed)}")


def _in_memory(config: ConfigDict, split: Split, mesh: Mesh) -> ArraySplit:
    c = config.data
    if not is_encoded(split):
        return split
    if c.stored_size is None:
        raise UserError(
            f"data.stored_size is not set: data.store={c.store!r} decodes {c.source!r} once to squares of one "
            f"size; give the side in pixels, or use data.store='stream'."
        )
    if c.store == "host":  # before hours of decoding
        _check_fits_host(len(split), len(split) * c.stored_size**2 * 3)
    return materialize(
        split,
        size=c.stored_size,
        cache_dir=c.cache_dir or default_cache_dir(),
        budget_gb=c.memory_budget_gb,
        shares=mesh.size if c.store == "device" else 1,
        workers=c.num_workers or _cores(),  # decoding comes before training: it has the machine to itself
        max_broken_share=c.max_broken_share,
    )


def _cores() -> int:
    """CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
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


def _local_indices(config: ConfigDict, num_train: int, first_step: int) -> Iterator[np.ndarray]:
    """This process's part of every batch's example indices."""
    size = config.train.batch_size // jax.process_count()
    part = slice(jax.process_index() * size, (jax.process_index() + 1) * size)
    for index in index_batches(config.seed, first_step, n=num_train, batch_size=config.train.batch_size):
        yield index[part]


def _to_devices(config: ConfigDict, batches: Iterator[Any], mesh: Mesh) -> Iterator[Any]:
    """Batches on the devices, [b, …] or, with k > 1 steps per dispatch, [k, b, …]; some ahead of the one in use."""
    k = config.train.steps_per_dispatch
    if k > 1:
        batches = _stacked(batches, k)
    return prefetch_to_device(batches, batch_sharded(mesh, axis=int(k > 1)), size=IN_FLIGHT)


def _stacked(batches: Iterator[Any], k: int) -> Iterator[Any]:
    while True:
        group = list(itertools.islice(batches, k))
        yield jax.tree.map(lambda *x: np.stack(x), *group)
