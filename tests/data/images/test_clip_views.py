"""Views of clips: which frames they show, and what they have in common with views of images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_views import GLOBAL, MEAN, NOTHING, STD, random_images

from hamjepa_jax.data.images import clips, views

WHOLE = dataclasses.replace(NOTHING, scale=(1.0, 1.0), ratio=(1.0, 1.0))
OPTIONS = dict(seed=7, mean=MEAN, std=STD)


def numbered_clips(n, frames, size=4):
    """Clips whose frame t is of the one level t + 1."""
    levels = np.arange(1, frames + 1, dtype=np.uint8)[None, :, None, None, None]
    return np.broadcast_to(levels, (n, frames, size, size, 3))


def shown(found, spec):
    """Frame numbers [b, v, s] of views of `numbered_clips` without any augmentation."""
    levels = (np.asarray(found).reshape(*found.shape[:-1], -1, 3) * STD + MEAN) * 255 - 1
    assert np.ptp(levels, axis=(2, 3, 5)).max() < 1e-3
    return np.rint(levels[:, :, 0, 0, :, 0]).astype(int)


def test_two_views_are_a_gap_apart_and_gaps_and_starts_are_uniform():
    spec, ids = dataclasses.replace(WHOLE, size=4), jnp.arange(600)
    moments = clips.Moments(stack=2, max_gap=3, shared=True)
    (found,) = jax.jit(lambda x: clips.clip_views(x, ids, epoch=2, specs=((spec, 2),), moments=moments, **OPTIONS))(
        numbered_clips(600, 6)
    )
    assert found.shape == (600, 2, 4, 4, 6)
    frames = shown(found, spec)
    np.testing.assert_array_equal(frames[..., 1], frames[..., 0] + 1)  # Consecutive, the earlier one first.
    gaps = frames[:, 1, 0] - frames[:, 0, 0]
    np.testing.assert_array_equal(gaps, clips.draw_gaps(ids, seed=7, epoch=2, max_gap=3))
    assert (np.bincount(gaps, minlength=4)[1:] > 160).all() and gaps.max() == 3
    for gap in (1, 2, 3):  # Every start that leaves room is as likely.
        counts = np.bincount(frames[gaps == gap, 0, 0], minlength=6)
        assert (counts[: 5 - gap] > 0.7 * counts.sum() / (5 - gap)).all() and not counts[5 - gap :].any()


def test_gaps_are_of_the_seed_the_epoch_and_the_example_alone():
    ids, reverse = jnp.asarray([5, 3, 9]), jnp.asarray([9, 3, 5])
    gaps = [
        np.asarray(clips.draw_gaps(x, seed=seed, epoch=epoch, max_gap=1000))
        for x, seed, epoch in ((ids, 0, 0), (reverse, 0, 0), (ids, 0, 1), (ids, 1, 0))
    ]
    np.testing.assert_array_equal(gaps[0], gaps[1][::-1])
    assert len({tuple(g) for g in gaps}) == 4


def test_a_clip_that_stands_still_has_the_views_of_its_image():
    images, ids = random_images(3), jnp.asarray([4, 0, 2])
    still = np.repeat(images[:, None], 5, axis=1)
    specs = ((GLOBAL, 2),)
    want = jax.jit(lambda x: views.make_views(x, ids, epoch=1, specs=specs, **OPTIONS)[0])(images)

    def made(moments):
        return jax.jit(lambda x: clips.clip_views(x, ids, epoch=1, specs=specs, moments=moments, **OPTIONS))

    apart = clips.Moments(stack=1, max_gap=2, shared=False)
    found = made(apart)(still)[0]
    np.testing.assert_allclose(found, want, atol=2e-6)
    together = clips.Moments(stack=2, max_gap=2, shared=True)
    found = made(together)(still)[0]
    first = np.concatenate([want[:, :1]] * 2, axis=-1)  # The crop and colours of the first view, in both frames.
    np.testing.assert_allclose(found, np.repeat(first, 2, axis=1), atol=2e-6)


def test_evaluation_shows_the_first_frames():
    x = random_images(6).reshape(2, 3, 20, 24, 3)
    found = clips.eval_clips(x, stack=2, size=16, resize=16, mean=MEAN, std=STD)
    want = [views.eval_images(x[:, t], size=16, resize=16, mean=MEAN, std=STD) for t in (0, 1)]
    np.testing.assert_array_equal(found, np.concatenate(want, axis=-1))


def test_wrong_shapes_are_refused():
    moments = clips.Moments(stack=2, max_gap=3, shared=True)
    make = lambda x: clips.clip_views(x, jnp.arange(2), epoch=0, specs=((GLOBAL, 2),), moments=moments, **OPTIONS)  # noqa: E731
    with pytest.raises(ValueError, match=r"clips \[b, T, h, w, 3\]"):
        make(random_images(2))
    with pytest.raises(ValueError, match=r"need 5 frames, got 4"):
        make(numbered_clips(2, 4))
