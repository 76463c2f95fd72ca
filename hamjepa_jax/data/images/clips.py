"""Views of clips: moments of one clip, a random number of frames apart, each made as a view of an image is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from hamjepa_jax import rng
from hamjepa_jax.data import augment
from hamjepa_jax.data.images.views import ViewSpec, eval_images, numbered, view, view_keys

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Moments:
    """Which frames the views of a clip show.

    Attributes:
      stack: consecutive frames that make one view, along its channels.
      max_gap: the largest gap, in frames, from one view to the next.
      shared: whether all views of a clip have the crop and the colours of the first.
    """

    stack: int
    max_gap: int
    shared: bool


def draw_gaps(example_ids: Array, *, seed: int | Array, epoch: int | Array, max_gap: int) -> Array:
    """Frames from one view of each clip to the next, uniform in 1 … max_gap.

    Args:
      example_ids: [b] positions of the clips in their split; may be traced.
      seed: the run's seed.
      epoch: counted from 0; may be traced.
      max_gap: see `Moments`.

    Returns:
      [b] int32, a function of (seed, epoch, example).
    """
    return _drawn(example_ids, rng.stream(seed, "gaps", epoch), 1, max_gap + 1)


def clip_views(
    clips: Array,
    example_ids: Array,
    *,
    seed: int | Array,
    epoch: int | Array,
    specs: tuple[tuple[ViewSpec, int], ...],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    moments: Moments,
) -> tuple[Array, ...]:
    """Random views of a batch of clips, normalised: view k shows the moment k gaps after view 0.

    The gap is that of `draw_gaps`, and the first moment is uniform among those that leave room for the others. The
    frames of a view have its crop and colours all alike.

    Args:
      clips: [b, T, h, w, 3] uint8.
      example_ids, seed, epoch, specs, mean, std: see `make_views`.
      moments: which frames are shown.

    Returns:
      For each pair of `specs` an array [b, v, size, size, 3·stack], float32: the colours of the first frame come
      first.

    Raises:
      ValueError: if the clips are not [b, T, h, w, 3], too short, or there is not one id for each.
    """
    if clips.ndim != 5 or clips.shape[-1] != 3 or example_ids.shape != clips.shape[:1]:
        raise ValueError(
            f"clip_views expects clips [b, T, h, w, 3] and ids [b], got {clips.shape} and {example_ids.shape}."
        )
    count = sum(count for _, count in specs)
    longest = (count - 1) * moments.max_gap + moments.stack
    if clips.shape[1] < longest:
        raise ValueError(f"{count} views of clips with these moments need {longest} frames, got {clips.shape[1]}.")
    gaps = draw_gaps(example_ids, seed=seed, epoch=epoch, max_gap=moments.max_gap)
    room = clips.shape[1] - (count - 1) * gaps - moments.stack + 1
    starts = _drawn(example_ids, rng.stream(seed, "moments", epoch), 0, room)
    epoch_key = rng.stream(seed, "views", epoch)

    def one_view(key, clip, first, spec):
        frames = jax.lax.dynamic_slice_in_dim(clip, first, moments.stack)
        return _stacked(jax.vmap(lambda frame: augment.normalize(view(key, frame, spec), mean, std))(frames))

    def views_of_one(example_id, clip, start, gap, spec, numbers):
        keys = view_keys(epoch_key, example_id, jnp.zeros_like(numbers) if moments.shared else numbers)
        return jax.vmap(lambda key, number: one_view(key, clip, start + number * gap, spec))(keys, numbers)

    return tuple(
        jax.vmap(functools.partial(views_of_one, spec=spec, numbers=numbers))(example_ids, clips, starts, gaps)
        for spec, numbers in numbered(specs)
    )


def eval_clips(clips: Array, *, stack: int, size: int, resize: int | None, mean, std) -> Array:
    """The first `stack` frames of clips [b, T, h, w, 3] as they are evaluated, [b, size, size, 3·stack] float32.

    Args:
      clips: uint8, or float in [0, 1].
      stack: see `Moments`.
      size, resize, mean, std: see `eval_images`.
    """
    frames = clips[:, :stack]
    flat = eval_images(frames.reshape(-1, *clips.shape[2:]), size=size, resize=resize, mean=mean, std=std)
    return jax.vmap(_stacked)(flat.reshape(*frames.shape[:2], size, size, 3))


def _stacked(frames: Array) -> Array:
    """[s, h, w, 3] -> [h, w, 3·s]."""
    return jnp.moveaxis(frames, 0, 2).reshape(*frames.shape[1:3], -1)


def _drawn(example_ids: Array, key: Array, low: int, high: int | Array) -> Array:
    """A whole number in low … high − 1 for each example; `high` is one number or one for each."""
    high = jnp.broadcast_to(high, example_ids.shape)
    return jax.vmap(lambda i, high: jax.random.randint(jax.random.fold_in(key, i), (), low, high))(
        example_ids, high
    )
