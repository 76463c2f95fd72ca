"""The objective on clips: the flow runs for each example's own number of frames."""

import contexts
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hamjepa_jax import nn, parts
from hamjepa_jax.objectives import Seen
from hamjepa_jax.objectives.hamjepa import over_gaps
from hamjepa_jax.training.monitor import collapse_warnings

GAPS = jnp.asarray([1, 3, 2, 3])
SCALE = 0.5


def states(v=1):
    return jax.random.normal(jax.random.key(1), (v, 4, 6))


def flow_of(predictor):
    params = predictor.init(jax.random.key(0), 3)
    return lambda z, direction: predictor.flow(params, z, direction, SCALE)


def test_the_flow_over_k_frames_is_one_of_k_times_the_steps_and_the_reverse_one_returns():
    short = flow_of(contexts.predictor(num_steps=2))
    z, moved = states(), over_gaps(short, GAPS, 3)(states(), 1)
    for row, gap in enumerate(GAPS.tolist()):
        want = flow_of(contexts.predictor(num_steps=2 * gap))(z[:, row], 1)
        np.testing.assert_allclose(moved[:, row], want, atol=2e-6)
    np.testing.assert_allclose(over_gaps(short, GAPS, 3)(moved, -1), z, atol=2e-6)


@pytest.mark.parametrize(
    "predictor",
    [
        nn.mlp_predictor(num_steps=1, hidden=8, depth=1),
        contexts.predictor(energy="general"),
        contexts.predictor(method="euler"),
        nn.identity_predictor(),
    ],
    ids=["mlp", "general", "euler", "identity"],
)
def test_the_controls_are_applied_as_often(predictor):
    flow, z = flow_of(predictor), states()
    moved = over_gaps(flow, GAPS, 3)(z, 1)
    for row, gap in enumerate(GAPS.tolist()):
        want = z[:, row]
        for _ in range(gap):
            want = flow(want, 1)
        np.testing.assert_allclose(moved[:, row], want, atol=1e-6)


def test_one_program_serves_all_gaps_and_images_have_no_gap():
    context = contexts.context(batch_size=4, embed_dim=6, grid=None, max_gap=3)
    objective = parts.objectives["hamjepa"].make(context, contexts.values("hamjepa", projection_dim=2))
    params, draw = context.predictor.init(jax.random.key(0), 3), objective.draw(0)
    traces = []

    def loss_of(objective, gaps):
        return objective.of(params, Seen(states(2), states(2), gaps=gaps), draw, 1)[0]

    @jax.jit
    def loss(gaps):
        traces.append(1)
        return loss_of(objective, gaps)

    ones = loss(jnp.ones(4, jnp.int32))
    assert abs(loss(GAPS) - ones) > 1e-6 and len(traces) == 1
    np.testing.assert_allclose(jax.jit(lambda: loss_of(objective, None))(), ones, rtol=1e-6)
    blind = objective._replace(reads_gaps=False, loss=lambda params, z, draw, epoch: (z.mean(), {}))
    assert loss_of(blind, GAPS) == states(2).mean()


@pytest.mark.parametrize("method", ["leapfrog", "euler"])
def test_a_clip_of_the_flow_is_predicted_without_error_and_so_is_the_clip_played_backwards(method):
    """Backwards with −Δt, exactly for a reversible integrator; with +Δt it is another motion."""
    predictor = contexts.predictor(method=method, step_size=0.2, num_steps=1, hidden=4, depth=1)
    context = contexts.context(batch_size=4, embed_dim=6, grid=None, max_gap=3, predictor=predictor)
    params = jax.tree.map(lambda x: 3 * x, predictor.init(jax.random.key(0), 3))

    @jax.jit
    def errors(start):
        flow = over_gaps(lambda z, way: predictor.flow(params, z, way, context.residual_scale(1)), GAPS, 3)
        z, found = jnp.stack([start, flow(start, 1)]), {}
        for way, gaps in (("reverse_time", GAPS), ("forward", GAPS), ("reverse_time", GAPS[::-1])):
            values = contexts.values("hamjepa", projection_dim=2, match="qp", both_directions=way)
            objective = parts.objectives["hamjepa"].make(context, values)
            draw = jnp.eye(3)[:, :2]
            metrics = objective.of(params, Seen(z, z, gaps=gaps), {"q": draw, "p": draw}, 1)[1]
            found[way, gaps is GAPS] = metrics["pred"]
        return found

    found = errors(states()[0])
    assert (found["reverse_time", True] < 1e-11) == (method == "leapfrog")
    assert found["forward", True] > 1e-2 and found["reverse_time", False] > 1e-2


def test_one_direction_is_not_taken_for_a_collapse():
    """Of a system with one degree of freedom, q and p have one coordinate each, which has all of the variance."""
    for d in (1, 2):
        context = contexts.context(batch_size=4, embed_dim=2 * d, grid=None)
        objective = parts.objectives["hamjepa"].make(context, contexts.values("hamjepa"))
        z, params, draw = states(2)[..., : 2 * d], context.predictor.init(jax.random.key(0), d), jnp.eye(d)
        metrics = jax.eval_shape(lambda *x: objective.of(*x, 1)[1], params, Seen(z, z), {"q": draw, "p": draw})
        told = collapse_warnings({name: 1.0 for name in metrics})  # As large as shares can be.
        assert set(told) == ({"q_eigmax", "p_eigmax"} if d == 2 else set())
