"""Data: sources of images, their order, the device-resident store, and random views computed on the device."""

from hamjepa_jax.data import augment
from hamjepa_jax.data.order import batch_indices, index_batches, permutation
from hamjepa_jax.data.sources import open_source
from hamjepa_jax.data.split import ArraySplit, Source, Split
from hamjepa_jax.data.store import DeviceStore, gather
from hamjepa_jax.data.views import ViewSpec, eval_images, make_views, photometric, sample_crop_box, view

__all__ = [
    "ArraySplit",
    "DeviceStore",
    "Source",
    "Split",
    "ViewSpec",
    "augment",
    "batch_indices",
    "eval_images",
    "gather",
    "index_batches",
    "make_views",
    "open_source",
    "permutation",
    "photometric",
    "sample_crop_box",
    "view",
]
