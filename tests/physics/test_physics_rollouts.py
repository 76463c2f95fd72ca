"""Trajectories of the demonstration systems against the published numbers and closed forms."""

import jax
import numpy as np
import pytest

from hamjepa_jax import physics
from hamjepa_jax.physics import SYSTEMS

STEP = dict(step_size=0.1, num_steps=250)


@pytest.mark.parametrize("method, tolerance", [("leapfrog", 1e-12), ("euler", 1e-9)])
def test_pendulum_rollout_equals_the_goldens(goldens, method, tolerance):
    golden = goldens("physics")
    pendulum = SYSTEMS["pendulum"]
    q, p = physics.rollout(pendulum, golden["q0"][:, 0], golden["p0"][:, 0], method=method, **STEP)
    assert q.dtype == np.float64 and q.shape == (251, 16)
    np.testing.assert_allclose(q[::25], golden[f"{method}/q"][..., 0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(p[::25], golden[f"{method}/p"][..., 0], rtol=tolerance, atol=tolerance)
    energy = physics.energy(pendulum, q, p)
    np.testing.assert_allclose(energy[::25], golden[f"{method}/energy"], rtol=tolerance)


@pytest.mark.parametrize("method", ["leapfrog", "euler"])
def test_area_defect_and_reversal_equal_the_goldens(goldens, method):
    golden = goldens("physics")
    pendulum = SYSTEMS["pendulum"]
    start = golden["q0"][:, 0], golden["p0"][:, 0]
    blob = physics.blob_grid(pendulum, 41)
    area = physics.grid_area(*physics.rollout(pendulum, *blob, method=method, **STEP))
    np.testing.assert_allclose(area[::25] / area[0], golden[f"{method}/area_ratio"], rtol=1e-10)
    defect = physics.symplectic_defect(pendulum, *start, method=method, step_size=0.1, num_steps=1)
    np.testing.assert_allclose(defect, golden[f"{method}/symplectic_defect"], rtol=1e-12, atol=1e-15)
    error = physics.return_error(pendulum, *start, method=method, **STEP)
    np.testing.assert_allclose(error, golden[f"{method}/reversal_error"], rtol=1e-9, atol=2e-12)


def test_precision_does_not_leak():
    q, _ = physics.endpoint(SYSTEMS["duffing"], np.ones(2), np.zeros(2), method="leapfrog", **STEP)
    assert q.dtype == np.float64
    assert jax.numpy.ones(1).dtype == np.float32


def test_endpoint_is_the_rollout_s_last_state():
    start = physics.random_starts(SYSTEMS["duffing"], 5)
    last = physics.rollout(SYSTEMS["duffing"], *start, method="euler", step_size=0.05, num_steps=20)
    end = physics.endpoint(SYSTEMS["duffing"], *start, method="euler", step_size=0.05, num_steps=20)
    np.testing.assert_allclose(np.stack(end), np.stack(last)[:, -1], rtol=1e-14)


def test_euler_s_energy_on_the_oscillator_grows_by_its_closed_form():
    # One explicit step multiplies q² + p² by 1 + Δt².
    oscillator = SYSTEMS["oscillator"]
    q, p = physics.rollout(oscillator, np.array([1.0, -0.3]), np.array([0.2, 2.0]), method="euler", **STEP)
    growth = physics.energy(oscillator, q, p) / physics.energy(oscillator, q[:1], p[:1])
    np.testing.assert_allclose(growth, np.tile((1.01 ** np.arange(251))[:, None], (1, 2)), rtol=1e-12)


@pytest.mark.parametrize("system", SYSTEMS.values(), ids=lambda s: s.name)
def test_every_system_s_window_shows_the_contrast(system):
    q0, p0 = physics.window_grid(system, 21)
    drift = {m: physics.drift_map(system, q0, p0, method=m) for m in ("euler", "leapfrog")}
    inside = ~np.isnan(drift["leapfrog"])
    assert 0.9 < inside.mean() < 1.0  # the middle of each well is masked
    assert np.abs(drift["leapfrog"][inside]).max() < 5e-3
    assert np.median(drift["euler"][inside]) > 0.2


def test_starts_fill_the_window_and_never_change():
    pendulum = SYSTEMS["pendulum"]
    q, p = physics.random_starts(pendulum, 256)
    np.testing.assert_array_equal(q, physics.random_starts(pendulum, 256)[0])
    assert 0.95 < np.abs(q).max() / pendulum.q_max <= 1 and 0.95 < np.abs(p).max() / pendulum.p_max <= 1
    assert abs(np.corrcoef(q, p)[0, 1]) < 0.2


def test_overflow_is_an_infinite_return_error():
    system = SYSTEMS["duffing"]
    error = physics.return_error(system, np.array([1.5, 1.0]), np.array([1.0, 0.01]), method="euler", **STEP)
    assert np.isinf(error[0])


def test_mismatched_starts_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)"):
        physics.rollout(SYSTEMS["pendulum"], np.ones(3), np.ones(2), method="euler", **STEP)
    with pytest.raises(ValueError, match="rk4"):
        physics.endpoint(SYSTEMS["pendulum"], np.ones(2), np.ones(2), method="rk4", **STEP)
