"""Exact cosine k-nearest-neighbour classification with a bank that is streamed and may be spread over devices.

Memory does not grow with n beyond the bank itself and its copy of unit rows: the largest temporaries on each device
are one block of similarities, [query_chunk, bank_chunk] float32, and two copies of it. Each device of a mesh holds
1/devices of the bank in whole chunks and finds its own nearest rows for all queries; then candidates are merged.
Every block of similarities is the same product on any number of devices, and so is the result.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from hamjepa_jax.evaluation.checks import Features, check_labelled
from hamjepa_jax.evaluation.ranking import label_rank

Array = jax.Array

# Chunks are whole multiples of this many rows, so that no bank row falls into the ragged edge of a matrix product,
# where it could be rounded differently from its duplicate elsewhere in the bank.
_ROW_MULTIPLE = 128
_NO_LABEL = -1

VOTES = ("majority", "softmax")


class Chunks(NamedTuple):
    """Attributes:
    query_chunk: queries compared at once.
    bank_chunk: bank rows compared at once, rounded up to a multiple of 128.
    """

    query_chunk: int = 1024
    bank_chunk: int = 4096


def knn_accuracy(
    train_x: Features,
    train_y: Features,
    test_x: Features,
    test_y: Features,
    *,
    ks: Sequence[int],
    num_classes: int,
    vote: str = "majority",
    temperature: float = 0.07,
    published: bool = False,
    mesh: Mesh | None = None,
    **chunks: int,
) -> dict[str, dict[int, float]]:
    """Accuracy of cosine kNN, by default with unweighted majority vote, for several k in one pass over the bank.

    Exact: every query is compared with every bank row, in float32 products of the highest precision. Equal
    similarities are taken in the order of the bank; equal votes go to the smaller class index. With a k larger than
    the bank the whole bank votes. A row of zeros has similarity 0 to everything.

    A test example counts for top-5 if its label is among the five classes with most votes and a neighbour has it.
    In the published top-5 classes without a vote fill up the five places, so that a label that no neighbour has may
    be right, and at k = 1 top-5 exceeds top-1. `published=True` gives that number too, with equal votes in the
    order of the class index (the published implementation leaves their order to its selection algorithm).

    Args:
      train_x: the bank, [n, d] NumPy or JAX array.
      train_y: [n] integer labels in [0, num_classes).
      test_x: queries, [m, d].
      test_y: [m] labels.
      ks: numbers of neighbours, each at least 1.
      num_classes: number of classes.
      vote: "majority", or "softmax": a neighbour's vote weighs exp(cosine / temperature) (Wu et al., 2018).
      temperature: of the softmax vote; must be positive.
      published: whether to count top-5 as the published numbers do as well.
      mesh: devices to spread the bank over (all axes of the mesh together); without it the mesh on which `train_x`
        already lies, else one device.
      **chunks: fields of `Chunks`.

    Returns:
      {"top1": {k: accuracy}, "top5": {k: accuracy}}, accuracies in [0, 1], keys in the order of `ks`; with
      `published` also "top5_published".

    Raises:
      ValueError: if shapes or label ranges disagree, features are not finite, a k or chunk is below 1, or there
        is no such vote.
    """
    train_x, train_y, test_x, test_y = check_labelled(train_x, train_y, test_x, test_y, num_classes)
    if not all(isinstance(k, int | np.integer) for k in ks):
        raise ValueError(f"ks must be whole numbers of neighbours, got {ks}.")
    ks = tuple(int(k) for k in ks)
    query_chunk, bank_chunk = Chunks(**chunks)
    _check_settings(ks, vote, temperature, query_chunk, bank_chunk)
    mesh = mesh or _mesh_of(train_x)
    n, m = train_x.shape[0], test_x.shape[0]
    bank_chunk = _round_up(min(bank_chunk, n), _ROW_MULTIPLE)
    bank_rows, sharded = _round_up(n, bank_chunk * mesh.size), NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    bank = _unit_bank(_place(train_x, bank_rows, sharded), bank_chunk=bank_chunk, mesh=mesh)
    bank_labels = _place(train_y, bank_rows, sharded, fill=_NO_LABEL)
    query_chunk = min(query_chunk, _round_up(m, _ROW_MULTIPLE))
    replicated = NamedSharding(mesh, PartitionSpec())
    distinct, hits = sorted(set(ks)), []
    for start in range(0, m, query_chunk):
        hits.append(
            _count_hits(
                bank,
                bank_labels,
                _place(test_x[start : start + query_chunk], query_chunk, replicated),
                _place(test_y[start : start + query_chunk], query_chunk, replicated, fill=_NO_LABEL),
                mesh=mesh,
                bank_chunk=bank_chunk,
                ks=tuple(distinct),
                num_classes=num_classes,
                temperature=temperature if vote == "softmax" else None,
            )
        )
    totals = np.sum([np.asarray(h) for h in hits], axis=0, dtype=np.int64)
    by_k = dict(zip(distinct, totals.tolist(), strict=True))
    names = ("top1", "top5", "top5_published")[: 3 if published else 2]
    return {name: {k: by_k[k][column] / m for k in ks} for column, name in enumerate(names)}


def _check_settings(ks: tuple[int, ...], vote: str, temperature: float, query_chunk: int, bank_chunk: int) -> None:
    if not ks or min(ks) < 1:
        raise ValueError(f"ks must be one or more numbers of neighbours, each at least 1, got {ks}.")
    if query_chunk < 1 or bank_chunk < 1:
        raise ValueError(f"query_chunk and bank_chunk must be positive, got {query_chunk} and {bank_chunk}.")
    if vote not in VOTES or not 0 < temperature < math.inf:
        raise ValueError(f"vote must be one of {VOTES} with a temperature above 0, got {vote!r}, {temperature}.")


@functools.partial(jax.jit, static_argnames=("mesh", "bank_chunk", "ks", "num_classes", "temperature"))
def _count_hits(
    bank: Array,
    bank_labels: Array,
    queries: Array,
    query_labels: Array,
    *,
    mesh: Mesh,
    bank_chunk: int,
    ks: tuple[int, ...],
    num_classes: int,
    temperature: float | None,
) -> Array:
    """Numbers of right answers [len(ks), 3] (top-1, top-5, top-5 as published) of some queries; ks ascending.

    `bank` [N, d] of unit rows is sharded by rows over all axes of the mesh; rows labelled −1 are padding, in the
    bank as in the queries. Votes are weighed by exp(cosine / temperature), or equally if that is None.
    """
    num_neighbours = min(ks[-1], bank.shape[0])
    rows, everywhere = PartitionSpec(mesh.axis_names), PartitionSpec()

    def nearest_of_all(bank, bank_labels, queries):
        similarity, labels = _nearest(bank, bank_labels, queries, bank_chunk, num_neighbours)
        # Gathered in the order of the mesh, which is the order of the bank: stable top_k keeps ties in it.
        similarity = jax.lax.all_gather(similarity, mesh.axis_names, axis=1, tiled=True)
        labels = jax.lax.all_gather(labels, mesh.axis_names, axis=1, tiled=True)
        return _top(similarity, labels, num_neighbours)

    similarity, neighbours = jax.shard_map(
        nearest_of_all,
        mesh=mesh,
        in_specs=(rows, rows, everywhere),
        out_specs=everywhere,
        check_vma=False,  # The checker cannot see that the gathered candidates are equal everywhere.
    )(bank, bank_labels, queries)

    classes = jnp.arange(num_classes, dtype=jnp.int32)[None, None, :]
    valid = query_labels != _NO_LABEL
    kind = jnp.int32 if temperature is None else jnp.float32
    weights = jnp.ones_like(neighbours)
    if temperature is not None:
        # A query's factor changes no comparison; with this one the nearest vote counts 1 at any temperature.
        weights = jnp.exp((similarity - similarity[:, :1]) / temperature)
    votes = jnp.zeros((queries.shape[0], num_classes), kind)
    counted, hits = 0, []
    for k in ks:
        # Only the neighbours that this k adds; the comparison with all classes is fused into the sum.
        votes += jnp.sum(
            jnp.where(neighbours[:, counted:k, None] == classes, weights[:, counted:k, None], 0), axis=1, dtype=kind
        )
        counted = k
        rank = label_rank(votes, jnp.maximum(query_labels, 0))
        voted = jnp.any(neighbours[:, :k] == query_labels[:, None], axis=1)
        right = rank < 1, (rank < 5) & voted, rank < 5
        hits.append(jnp.stack([jnp.sum(valid & r) for r in right]))
    return jnp.stack(hits)


def _nearest(
    bank: Array, bank_labels: Array, queries: Array, bank_chunk: int, num_neighbours: int
) -> tuple[Array, Array]:
    """Similarities and labels [b, num_neighbours] of the nearest rows of this device's bank, nearest first.

    The nearest so far stand before each chunk's similarities, and one top_k takes the nearest of all. On CPUs it is
    a heap of num_neighbours entries: begun with near rows, it passes nearly every other over after one comparison.
    """
    queries = _unit_rows(queries)

    def visit(nearest, chunk):
        rows, labels = chunk
        similarity = jnp.matmul(queries, rows.T, precision=jax.lax.Precision.HIGHEST)
        # top_k orders −0 below +0; cosines must not.
        similarity = jnp.where(similarity == 0.0, 0.0, similarity)
        similarity = jnp.where((labels == _NO_LABEL)[None, :], -jnp.inf, similarity)
        # Earlier rows stand first, and top_k is stable: of equal similarities the smaller bank index wins.
        found, index = jax.lax.top_k(jnp.concatenate([nearest[0], similarity], axis=1), num_neighbours)
        before = jnp.take_along_axis(nearest[1], jnp.minimum(index, num_neighbours - 1), axis=1)
        new = labels[jnp.maximum(index - num_neighbours, 0)]
        return (found, jnp.where(index < num_neighbours, before, new)), None

    shape = (queries.shape[0], num_neighbours)
    nobody = jnp.full(shape, -jnp.inf, jnp.float32), jnp.full(shape, _NO_LABEL, jnp.int32)
    chunks = bank.reshape(-1, bank_chunk, bank.shape[1]), bank_labels.reshape(-1, bank_chunk)
    return jax.lax.scan(visit, nobody, chunks)[0]


def _top(similarity: Array, labels: Array, count: int) -> tuple[Array, Array]:
    """The `count` most similar columns of [b, ≥ count], nearest first and stable, with their labels."""
    similarity, index = jax.lax.top_k(similarity, count)
    return similarity, jnp.take_along_axis(labels, index, axis=1)


def _unit_rows(x: Array) -> Array:
    x = x.astype(jnp.float32)
    # Scaled by the largest entry first, so that the squares of tiny or huge features neither vanish nor overflow.
    largest = jnp.max(jnp.abs(x), axis=1, keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1.0)
    norm = jnp.sqrt(jnp.sum(x * x, axis=1, keepdims=True))
    return x / jnp.where(norm > 0, norm, 1.0)


@functools.partial(jax.jit, static_argnames=("bank_chunk", "mesh"))
def _unit_bank(bank: Array, *, bank_chunk: int, mesh: Mesh) -> Array:
    """The bank [N, d] with rows of length 1, float32; once for all queries, chunk by chunk."""

    def of_device(rows: Array) -> Array:
        return jax.lax.map(_unit_rows, rows.reshape(-1, bank_chunk, rows.shape[1])).reshape(rows.shape)

    rows = PartitionSpec(mesh.axis_names)
    return jax.shard_map(of_device, mesh=mesh, in_specs=rows, out_specs=rows)(bank)


def _mesh_of(x: Features) -> Mesh:
    """The mesh an array already lies on, else one of a single device."""
    if isinstance(x, jax.Array) and isinstance(x.sharding, NamedSharding):
        return x.sharding.mesh
    device = next(iter(x.devices())) if isinstance(x, jax.Array) else jax.local_devices()[0]
    return Mesh(np.array([device]), ("data",), axis_types=(AxisType.Auto,))


def _place(x: Features, rows: int, sharding: NamedSharding, fill: int = 0) -> Array:
    """`x` lengthened to `rows` rows of `fill` and laid out by `sharding`; host memory goes shard by shard."""
    padding = ((0, rows - x.shape[0]),) + ((0, 0),) * (x.ndim - 1)
    if isinstance(x, jax.Array):
        return jax.device_put(jnp.pad(x, padding, constant_values=fill), sharding)
    x = np.pad(x, padding, constant_values=fill)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
