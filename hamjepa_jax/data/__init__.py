"""Data: sources of images, their order, the device-resident store, streams of crops, and random views."""

from hamjepa_jax.data import augment
from hamjepa_jax.data.images.clips import Moments, clip_views, draw_gaps, eval_clips
from hamjepa_jax.data.images.decode import BrokenImage, pixels_of
from hamjepa_jax.data.images.views import (
    ViewSpec,
    eval_images,
    make_views,
    photometric,
    photometric_views,
    sample_crop_box,
    view,
)
from hamjepa_jax.data.pipeline.broken import Broken, BrokenImages
from hamjepa_jax.data.pipeline.eval_batches import eval_batches
from hamjepa_jax.data.pipeline.order import batch_indices, index_batches, permutation
from hamjepa_jax.data.pipeline.prefetch import prefetch_to_device
from hamjepa_jax.data.pipeline.square_cache import materialize
from hamjepa_jax.data.pipeline.store import DeviceStore, gather, rows_spread, spread
from hamjepa_jax.data.pipeline.stream import check_host_memory, host_memory, stream_batches
from hamjepa_jax.data.pipeline.tfdata import check_tfdata, tfdata_batches
from hamjepa_jax.data.pipeline.view_crops import view_crops
from hamjepa_jax.data.sources import default_cache_dir, open_source
from hamjepa_jax.data.split import (
    UNLABELLED,
    ArraySplit,
    ClipSplit,
    EncodedSplit,
    Factor,
    ShapeSplit,
    Source,
    SourceOptions,
    Split,
    check_source,
    factors_of,
    frames_of,
    is_encoded,
    rows_of,
)

__all__ = [
    "UNLABELLED",
    "ArraySplit",
    "Broken",
    "BrokenImage",
    "BrokenImages",
    "ClipSplit",
    "DeviceStore",
    "EncodedSplit",
    "Factor",
    "Moments",
    "ShapeSplit",
    "Source",
    "SourceOptions",
    "Split",
    "ViewSpec",
    "augment",
    "batch_indices",
    "check_host_memory",
    "check_source",
    "check_tfdata",
    "clip_views",
    "default_cache_dir",
    "draw_gaps",
    "eval_batches",
    "eval_clips",
    "eval_images",
    "factors_of",
    "frames_of",
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
    "pixels_of",
    "prefetch_to_device",
    "rows_of",
    "rows_spread",
    "sample_crop_box",
    "spread",
    "stream_batches",
    "tfdata_batches",
    "view",
    "view_crops",
]
