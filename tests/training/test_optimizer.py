"""Learning rates against the published schedules; groups, decay and clipping of the optimiser."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hamjepa_jax.training.optimizer import adamw, warmup_cosine

KEY = re.compile(r"epochs(\d+)/spe(\d+)/warmup(\d+)/minratio([\d.]+)/lr([\d.]+)")


def test_schedule_goldens(goldens):
    golden = goldens("schedule")
    assert len(golden) == 3
    for key, want in golden.items():
        epochs, per_epoch, warmup, final, lr = map(float, KEY.fullmatch(key).groups())
        schedule = warmup_cosine(
            lr, warmup_steps=int(warmup * per_epoch), total_steps=int(epochs * per_epoch), start=0.01, final=final
        )
        np.testing.assert_allclose(jax.vmap(schedule)(jnp.arange(len(want))), want, rtol=0, atol=1e-9)


def optimiser(clip_norm=None, **schedules):
    return adamw(schedules, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.1, clip_norm=clip_norm)


def test_groups_have_their_own_learning_rates_and_everything_decays():
    optimizer = optimiser(a=optax.constant_schedule(0.1), b=optax.constant_schedule(0.01))
    params = {"a": {"w": jnp.ones(3), "bias": jnp.ones(1)}, "b": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    # No gradient: only the decoupled decay, −lr·0.1·w, on biases too.
    np.testing.assert_allclose(updates["a"]["w"], -0.01, rtol=1e-6)
    np.testing.assert_allclose(updates["a"]["bias"], -0.01, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -0.001, rtol=1e-6)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_clipping_is_by_the_norm_over_all_groups(clip_norm):
    schedule = optax.constant_schedule(1.0)
    optimizer = optimiser(clip_norm, a=schedule, b=schedule)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state = optimizer.init(params)
    gradient = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    _, state = optimizer.update(gradient, state, params)
    moments = [x for x in jax.tree.leaves(state) if x.shape == (1,)]
    scale = 1.0 if clip_norm is None else 0.2  # norm 5 -> 1
    np.testing.assert_allclose(sorted(float(m[0]) for m in moments)[-2:], [0.3 * scale, 0.4 * scale], rtol=1e-5)
