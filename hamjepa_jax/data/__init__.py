"""Data: sources of images, their order, the device-resident store, streams of crops, and random views."""

from hamjepa_jax.data import augment
from hamjepa_jax.data.cached import materialize
from hamjepa_jax.data.decode import BrokenImage
from hamjepa_jax.data.order import batch_indices, index_batches, permutation
from hamjepa_jax.data.prefetch import prefetch_to_device
from hamjepa_jax.data.read import Broken, BrokenImages
from hamjepa_jax.data.sources import default_cache_dir, open_source
from hamjepa_jax.data.split import ArraySplit, EncodedSplit, Source, Split, is_encoded
from hamjepa_jax.data.squares import eval_batches
from hamjepa_jax.data.store import DeviceStore, gather, rows_spread, spread
from hamjepa_jax.data.stream import check_host_memory, host_memory, stream_batches
from hamjepa_jax.data.tfdata import check_tfdata, tfdata_batches
from hamjepa_jax.data.views import (
    ViewSpec,
    eval_images,
    make_views,
    photometric,
    photometric_views,
    sample_crop_box,
    view,
)

__all__ = [
    "ArraySplit",
    "Broken",
    "BrokenImage",
    "BrokenImages",
    "DeviceStore",
    "EncodedSplit",
    "Source",
    "Split",
    "ViewSpec",
    "augment",
    "batch_indices",
    "check_host_memory",
    "check_tfdata",
    "default_cache_dir",
    "eval_batches",
    "eval_images",
    "gather",
    "host_memory",
    "index_batches",
    "is_encoded",
    "make_views",
    "materialize",
    "open_source",
    "permutation",
    "photometric",
    "photometric_views",
    "prefetch_to_device",
    "rows_spread",
    "sample_crop_box",
    "spread",
    "stream_batches",
    "tfdata_batches",
    "view",
]
