"""Measures of learned dynamics, on latents that are made so that the answer is known."""

import numpy as np
import pytest

from hamjepa_jax.evaluation import trajectories as measures


def oscillator(n, frames, dt, seed=0, frequency=1.0):
    """(s [frames, n, 2], flow over dt) of H = ½p² + ½ω²q²."""
    start = np.random.default_rng(seed).standard_normal((n, 2))

    def turned(z, t):
        q, p = z[..., :1], z[..., 1:]
        c, s, w = np.cos(frequency * t), np.sin(frequency * t), frequency
        return np.concatenate([c * q + s / w * p, c * p - w * s * q], axis=-1)

    path = np.stack([turned(start, k * dt) for k in range(frames)])

    def flow(z, direction):
        import jax.numpy as jnp

        q, p = z[..., :1], z[..., 1:]
        c, s, w = np.cos(frequency * dt), direction * np.sin(frequency * dt), frequency
        return jnp.concatenate([c * q + s / w * p, c * p - w * s * q], axis=-1)

    return path, flow


def states(n=400, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 2))


def test_linear_and_quadratic_maps_are_told_apart():
    z, other = states(), states(seed=1)
    linear = lambda z: z @ np.asarray([[1.0, 2.0], [0.5, -1.0]]) + 3  # noqa: E731
    bent = lambda z: np.stack([z[:, 0] + z[:, 1] ** 2, z[:, 0] * z[:, 1]], axis=1)  # noqa: E731
    noise = np.random.default_rng(2).standard_normal((800, 2))
    np.testing.assert_allclose(measures.state_scores(z, linear(z), other, linear(other))["linear"], 1, atol=1e-8)
    scores = measures.state_scores(z, bent(z), other, bent(other))
    np.testing.assert_allclose(scores["quadratic"], 1, atol=1e-8)
    assert scores["linear"][0] < 0.95 and abs(scores["linear"][1]) < 0.1
    assert max(measures.state_scores(z, noise[:400], other, noise[400:])["quadratic"]) < 0.05


def test_canonical_maps_have_no_defect_and_others_have_their_own():
    z, other = states(), states(seed=1)
    q, p = z.T
    shear = np.stack([2 * q, 1.5 * (p + 0.8 * q**2)], axis=1)  # Canonical up to a factor of 3.
    found = measures.symplecticity(z, shear, other)
    assert found["defect"] < 1e-5 and found["scale"] == pytest.approx(3, rel=1e-5) and found["r_squared"] > 1 - 1e-9
    swollen = np.stack([q, p * (1 + 0.5 * q)], axis=1)  # Brackets 1 + q/2.
    found = measures.symplecticity(z, swollen, other)
    brackets = 1 + 0.5 * other[:, 0]
    want = np.std(brackets) / np.sqrt(np.square(brackets).mean())
    assert found["defect"] == pytest.approx(want, rel=1e-4)


def test_symetric_asks_for_one_factor_along_each_trajectory():
    z, other = states(), states(seed=1)
    q, p = z.T
    found = measures.symplecticity(z, np.stack([p, 4 * q], axis=1), other)  # The sense of turning does not count.
    assert found["sym"] < 1e-9 and found["symetric"] == 1 and found["scale"] == pytest.approx(-4, rel=1e-5)
    squares = np.square(1 + 0.5 * other[:, 0])
    swollen = np.stack([q, p * (1 + 0.5 * q)], axis=1)  # Brackets 1 + q/2.
    found = measures.symplecticity(z, swollen, other)
    want = np.square(squares / squares.mean() - 1).mean() / 2  # Half of the entries are zero, as they should be.
    assert found["sym"] == pytest.approx(want, rel=1e-3) and found["symetric"] == 0
    apart = np.repeat(other[None, :50], 2, axis=0)  # Each trajectory stays where it is: its factor is one number.
    assert measures.symplecticity(z, swollen, apart)["sym"] < 1e-9


def test_more_learned_than_true_coordinates_keep_their_brackets():
    z = np.random.default_rng(0).uniform(-1, 1, (800, 4))
    s = np.stack([z[:, 0] + z[:, 1], 0.5 * (z[:, 2] + z[:, 3])], axis=1)  # {Q, P} = 1 as of one of the pairs.
    found = measures.symplecticity(z, s, z[:50])
    assert found["defect"] < 1e-5 and found["scale"] == pytest.approx(1, rel=1e-5)
    mixed = np.stack([z[:, 0], z[:, 1]], axis=1)  # Two positions: their bracket vanishes.
    assert measures.symplecticity(z, mixed, z[:50])["defect"] > 0.9


def test_the_true_flow_is_valid_to_the_end_both_ways_and_a_slower_one_is_not():
    path, flow = oscillator(20, 41, 0.3)
    path = path.astype(np.float32)
    ahead = measures.rollout(flow, path[0], frames=40, direction=1)
    back = measures.rollout(flow, path[-1], frames=40, direction=-1)
    np.testing.assert_allclose(back[::-1], path, atol=1e-5)
    errors = measures.rollout_errors(ahead, path)
    assert errors.max() < 1e-9 and (measures.valid_times(errors) == 40).all()
    np.testing.assert_array_equal(measures.retrieved(ahead, path), 1)

    _, slower = oscillator(20, 41, 0.3, frequency=0.9)
    errors = measures.rollout_errors(measures.rollout(slower, path[0], frames=40, direction=1), path)
    times = measures.valid_times(errors)
    assert 4 < np.median(times) < 20
    assert measures.retrieved(measures.rollout(slower, path[0], frames=40, direction=1), path)[-1] < 0.2


def test_motion_is_the_variance_within_clips():
    path, _ = oscillator(200, 63, 0.1)  # One period: positions and momenta average to nothing.
    assert measures.motion(path) > 0.99
    kept = np.broadcast_to(path[:1], path.shape)
    assert measures.motion(kept) < 1e-12
    assert measures.motion(np.concatenate([path / path.std(), kept / kept.std()], axis=-1)) == pytest.approx(
        0.5, abs=0.05
    )
    assert measures.motion(np.ones((3, 4, 2))) == 0


def test_errors_are_in_units_of_the_variance_within_clips():
    encoded = np.random.default_rng(0).standard_normal((50, 40, 3)) * [1, 2, 3] + 5
    mean = np.broadcast_to(encoded.mean(axis=0), encoded.shape)
    assert measures.rollout_errors(mean, encoded).mean() == pytest.approx(1)
    other = np.random.default_rng(1).permuted(encoded, axis=0)
    assert measures.rollout_errors(other, encoded).mean() == pytest.approx(2, rel=0.05)
    apart = 100 * np.random.default_rng(2).standard_normal((1, 40, 3))  # Of each clip: no motion.
    np.testing.assert_allclose(
        measures.rollout_errors(other + apart, encoded + apart), measures.rollout_errors(other, encoded)
    )
    gone = np.full_like(encoded, np.nan)
    assert np.isinf(measures.rollout_errors(gone, encoded)).all() and measures.retrieved(gone, encoded).max() < 0.2


def test_valid_times_count_the_frames_before_the_first_bad_one():
    errors = np.asarray([[0, 0, 0.2], [0.05, 0.3, 0.0], [0.1, 0.0, 0.0], [0.2, 0.0, 0.0]])
    np.testing.assert_array_equal(measures.valid_times(errors, largest=0.1), [2, 0, 0])
    np.testing.assert_array_equal(measures.valid_times(errors, largest=1.0), [3, 3, 3])


def test_energies_are_ranked_and_their_drift_measured():
    true = np.arange(1.0, 11)
    found = measures.energy_scores(np.tile(true, (5, 1)), true**3, true)
    assert found == {"drift": 0.0, "rank_correlation": pytest.approx(1.0)}
    growing = true + 0.5 * np.arange(5)[:, None]
    assert measures.energy_scores(growing, true, true)["drift"] == pytest.approx(2 / true.std())
    assert measures.energy_scores(growing, -true, true)["rank_correlation"] == pytest.approx(-1)
