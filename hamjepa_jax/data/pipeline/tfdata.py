"""The streams of stream.py for TFDS data sets in TFRecord files, read by tf.data.

tf.data usually reads such files from end to end and shuffles what fits into a buffer. Here it is told where each
record lies, and it reads those of a batch alone. So batches and crops are those of `stream_batches` on the
same data set, a stream starts at any step at no cost, and no process reads the records of another one.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from hamjepa_jax.data.pipeline.broken import BrokenImages
from hamjepa_jax.data.pipeline.closing import close_at_exit
from hamjepa_jax.data.pipeline.stream import ENDLESS, LocalBatches, Specs
from hamjepa_jax.data.sources.tfds import TFRecordSplit
from hamjepa_jax.data.split import Split
from hamjepa_jax.errors import UserError


def check_tfdata(split: Split) -> None:
    """Raises UserError unless TensorFlow is installed and the split is one that tf.data reads."""
    _tensorflow()
    if not isinstance(split, TFRecordSplit):
        raise UserError(
            "data.loader 'tfdata': data.source is not a TFDS data set in TFRecord files; set data.loader='grain'."
        )


def tfdata_batches(
    split: TFRecordSplit,
    *,
    seed: int,
    first_step: int,
    batch_size: int,
    specs: Specs,
    num_threads: int,
    process_index: int,
    process_count: int,
    max_broken_share: float,
) -> Iterator[dict[str, Any]]:
    """The batches of `stream_batches` for the same arguments, read by threads of tf.data.

    Raises:
      UserError: as `stream_batches`, and without TensorFlow; while iterating, at a record that cannot be read or
        does not match its checksum (an image that cannot be decoded is replaced, as there).
    """
    check_tfdata(split)
    batches = LocalBatches(split, seed, batch_size, specs, process_index, process_count, max_broken_share)
    failures: list[Exception] = []
    dataset = _dataset(split, batches, first_step, specs, num_threads, failures)
    taken = _watched(dataset, failures, BrokenImages(len(split), max_broken_share))
    close_at_exit(taken)
    return taken


def _dataset(
    split: TFRecordSplit,
    batches: LocalBatches,
    first_step: int,
    specs: Specs,
    num_threads: int,
    failures: list[Exception],
):
    """A tf.data.Dataset of (index, crops of each size, broken images as JSON)."""
    tf = _tensorflow()
    records = split.records
    paths = tf.constant(records.paths)

    def examples(step: int) -> list[np.ndarray]:
        epoch, index = batches.index(int(step))
        return [np.full_like(index, epoch), index, records.files[index], records.offsets[index]]

    def crops(epoch: int, example: int, record: bytes) -> list[Any]:
        views, broken = batches.views(int(epoch), int(example), lambda: split.encoded_in(record))
        views = iter(views)
        return [*(np.stack([next(views) for _ in range(count)]) for _, count in specs), json.dumps(broken)]

    def read(epoch, example, file, offset):
        # tf.data.TFRecordDataset is made of this, but does not let the caller say where to begin.
        from_there = tf.raw_ops.TFRecordDatasetV2(
            filenames=[paths[file]], compression_type="", buffer_size=0, byte_offsets=[offset]
        )
        record = tf.data.experimental.from_variant(from_there, tf.TensorSpec((), tf.string)).take(1)
        return record.map(lambda content: (epoch, example, content))

    def cut(epoch, example, record):
        shapes = [(count, spec.size, spec.size, 3) for spec, count in specs]
        kinds = [tf.uint8] * len(shapes) + [tf.string]
        *views, broken = tf.numpy_function(_remembering(crops, failures), [epoch, example, record], kinds)
        views = tuple(tf.ensure_shape(x, shape) for x, shape in zip(views, shapes, strict=True))
        return example, views, tf.ensure_shape(broken, ())

    def wanted(step):
        kinds = [tf.int32] * 2 + [tf.int64] * 2
        columns = tf.numpy_function(_remembering(examples, failures), [step], kinds)
        return tuple(tf.ensure_shape(x, (batches.size,)) for x in columns)

    dataset = tf.data.Dataset.range(first_step, ENDLESS).map(wanted).unbatch()
    dataset = dataset.interleave(read, cycle_length=2 * num_threads, num_parallel_calls=num_threads)
    dataset = dataset.map(cut, num_parallel_calls=num_threads).batch(batches.size).prefetch(1)
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = num_threads
    return dataset.with_options(options)


def _watched(dataset, failures: list[Exception], broken_images: BrokenImages) -> Iterator[dict[str, Any]]:
    """Iterates and reports broken images; raises the errors of this package's own functions unchanged."""
    tf = _tensorflow()
    iterator = dataset.as_numpy_iterator()
    while True:
        try:
            index, crops, broken = next(iterator)
        except tf.errors.OpError as error:
            if failures:
                raise failures[0] from None
            reason = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", error.message)
            raise UserError(f"data.source: TensorFlow cannot read a record ({reason}); prepare it again.") from None
        broken_images.report(b for text in broken for b in json.loads(text))
        yield {"index": index, "crops": crops}


def _remembering(function: Callable, failures: list[Exception]) -> Callable:
    """The function, with its exceptions noted in `failures`: TensorFlow keeps only their text."""

    def call(*arguments):
        try:
            return function(*arguments)
        except Exception as error:
            failures.append(error)
            raise

    return call


def _tensorflow():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError:
        raise UserError(
            "data.loader 'tfdata': TensorFlow is not installed; run pip install 'hamjepa-jax[tf]', or prepare the "
            "data set with --file_format=array_record and set data.loader='grain'."
        ) from None
    with contextlib.suppress(RuntimeError):  # A program may have used TensorFlow before.
        tf.config.set_visible_devices([], "GPU")  # JAX needs their memory.
    return tf
