"""The trajectories source: its motion, its energies, its pictures and its refusals."""

import numpy as np
import pytest
from scipy import ndimage

from hamjepa_jax.config import shipped
from hamjepa_jax.data import open_source
from hamjepa_jax.data.sources import trajectories
from hamjepa_jax.errors import UserError


def clips(system, **options):
    options = dict(train=20, test=10, frames=4, test_frames=12) | options
    return open_source(f"trajectories:{system}?" + "&".join(f"{k}={v}" for k, v in options.items()))


def halves(states):
    return np.split(states, 2, axis=-1)


def test_a_spring_moves_as_the_closed_form_has_it():
    split = clips("spring", dt=0.7).test
    q, p = halves(split.states)
    t = 0.7 * np.arange(12)[:, None]
    np.testing.assert_allclose(q, q[:, :1] * np.cos(t) + p[:, :1] * np.sin(t), atol=1e-10)
    np.testing.assert_allclose(p, p[:, :1] * np.cos(t) - q[:, :1] * np.sin(t), atol=1e-10)
    damped = clips("spring", dt=0.7, friction=0.3).test
    q, p = halves(damped.states)
    w = np.sqrt(1 - 0.15**2)
    want = np.exp(-0.15 * t) * (q[:, :1] * np.cos(w * t) + (p[:, :1] + 0.15 * q[:, :1]) / w * np.sin(w * t))
    np.testing.assert_allclose(q, want, atol=1e-10)
    np.testing.assert_array_equal(damped.states[:, 0], split.states[:, 0])  # Friction begins with the clip.


@pytest.mark.parametrize("name", trajectories.SYSTEMS)
def test_energy_is_conserved_and_of_its_class(name):
    system = trajectories.SYSTEMS[name]
    u = np.random.default_rng(3).random((20, 8))
    request = trajectories.Request(dt=0.9)
    states, energies = trajectories._motion(system, request, np.arange(20) % 10, u[:, :5], 20)
    np.testing.assert_allclose(energies, np.broadcast_to(energies[:, :1], energies.shape), atol=1e-11)
    low, high = system.energies
    np.testing.assert_array_equal(np.floor((energies[:, 0] - low) / (high - low) * 10), np.arange(20) % 10)
    z = tuple(halves(states[:, 0]))
    back = trajectories.advanced(system, *trajectories.advanced(system, *z, 7.0), -7.0)
    np.testing.assert_allclose(np.concatenate(back, axis=1), states[:, 0], atol=1e-10)
    q = states[:, 0, : states.shape[-1] // 2]  # The force is the potential's.
    change = 1e-6 * np.random.default_rng(4).standard_normal(q.shape)
    slope = (system.potential(q + change) - system.potential(q - change)) / 2
    np.testing.assert_allclose(slope, -(system.force(q) * change).sum(axis=1), atol=1e-12)


def test_friction_takes_energy_away():
    energies = clips("pendulum", friction=0.2, dt=0.5).test.energies
    assert (np.diff(energies, axis=1) < 1e-12).all() and (energies[:, -1] < 0.6 * energies[:, 0]).all()
    little = shipped("trajectories_pendulum", "friction=0.00001").data.source  # As Python writes it: 1e-05.
    assert trajectories._parse(little.partition(":")[2])[1].friction == 1e-5


@pytest.mark.parametrize("name", ["double_well", "two_body"])
def test_states_with_friction_are_exact_up_to_the_most_that_is_taken(name, monkeypatch):
    """With a fifth of the integrator's step they are the same."""
    friction = 0.125 / (0.2 * 29) if name == "two_body" else 1.0
    options = dict(train=10, test_frames=30, friction=f"{friction - 1e-6:.9f}")
    coarse = clips(name, **options).test
    monkeypatch.setattr(trajectories, "LONGEST_STEP", 0.02)
    np.testing.assert_allclose(coarse.states, clips(name, **options).test.states, atol=1e-10)
    assert (np.diff(coarse.energies, axis=1) < 1e-9).all()


def test_bodies_that_would_fall_on_each_other_are_refused():
    with pytest.raises(UserError, match=r"in the 12.6 units of time .* use at most 0.0099, or shorter clips"):
        open_source("trajectories:two_body?friction=0.1")


def test_the_bob_is_where_the_state_says():
    split = clips("pendulum", train=40).train
    levels = split.images[:, 0].astype(float).mean(axis=-1)
    assert (levels[:, 15:17, 15:17].max(axis=(1, 2)) > 110).all()  # The rod, which is narrow, begins at the centre.
    for picture, q in zip(levels > 140, split.states[:, 0, 0], strict=True):
        bob = ndimage.binary_opening(picture, np.ones((3, 3)))  # Without the rod.
        y, x = ndimage.center_of_mass(bob)
        np.testing.assert_allclose(
            [x + 0.5, y + 0.5], 16 + 0.34 * 32 * np.asarray([np.sin(q), np.cos(q)]), atol=0.7
        )


def test_every_system_moves_within_its_picture_and_bodies_of_other_looks_move_alike():
    for name in trajectories.SYSTEMS:
        plain, other = (clips(name, dt=0.8, color=c, size=c) for c in (0, 1))
        pictures = plain.train.images
        assert len(np.unique(pictures[:, :, 0].reshape(-1, 3), axis=0)) == 1, name  # Nothing leaves at the top.
        assert (np.abs(np.diff(pictures.astype(int), axis=1)).max(axis=(1, 2, 3, 4)) > 50).all(), name
        np.testing.assert_array_equal(plain.train.states, other.train.states)
        backgrounds = other.train.images[:, :, 0, 0]
        assert (np.ptp(backgrounds, axis=1) == 0).all() and len(np.unique(backgrounds[:, 0], axis=0)) > 15
        assert {"hue", "background_hue", "size"} <= set(other.train.factors)


@pytest.mark.parametrize("name", trajectories.SYSTEMS)
def test_the_opposite_state_looks_different(name):
    system, split = trajectories.SYSTEMS[name], clips(name, test=10).test
    q = split.states[:, :1, : split.states.shape[-1] // 2]
    looks = {"hue": np.zeros(10), "background_hue": np.zeros(10), "size": np.full(10, 0.1)}
    looks = {name: values.astype(np.float32) for name, values in looks.items()}
    pictures = [trajectories._clips(system, x, looks).astype(int) for x in (q, -q)]
    far = np.abs(q).max(axis=(1, 2)) > 0.2
    assert far.any() and (np.abs(pictures[0] - pictures[1])[far].max(axis=(1, 2, 3, 4)) > 50).all()


def test_two_bodies_have_colours_of_their_own():
    split = clips("two_body", test=10).test
    discs, _ = trajectories.SYSTEMS["two_body"].bodies(split.states[:, 0, :2])
    far = np.linalg.norm(discs[:, 0] - discs[:, 1], axis=1) > 0.3  # None covers the other's centre.
    x, y = np.floor(32 * discs[far]).astype(int).transpose(2, 1, 0)  # [bodies, clips] each.
    first, second = (split.images[far, 0][np.arange(far.sum()), y[i], x[i]].astype(int) for i in (0, 1))
    assert far.any() and (first[:, 0] > first[:, 2] + 20).all()  # Rather red,
    assert (second[:, 0] < second[:, 2] - 20).all()  # and rather blue.


def test_more_clips_leave_the_first_ones_as_they_were_and_seeds_differ():
    few, many, other = clips("double_well"), clips("double_well", train=30), clips("double_well", seed=1)
    np.testing.assert_array_equal(few.train.states, many.train.states[:20])
    np.testing.assert_array_equal(few.train.images, many.train.images[:20])
    assert few.fingerprint() != other.fingerprint() and not np.allclose(few.train.states, other.train.states)
    assert few.train.dt == 0.2 and few.train.num_frames == 4 and few.test.num_frames == 12
    assert few.train.image(3).shape == (32, 32, 3)


@pytest.mark.parametrize("rest", ["", "pendulums", "pendulums?train=100", "?train=100", "Pendulum"])
def test_other_systems_are_refused_with_those_there_are(rest):
    with pytest.raises(UserError, match=r"there is no system '.*'; expected one of pendulum, spring, duffing,"):
        open_source(f"trajectories:{rest}")


@pytest.mark.parametrize(
    "rest", ["pendulum?train=5", "pendulum?dt=0", "pendulum?speed=1", "pendulum?color=2",
             "pendulum?frames=1.5", "pendulum?friction=3", "pendulum?dt=1&dt=2"],
)  # fmt: skip
def test_other_requests_are_refused(rest):
    with pytest.raises(UserError, match=r"data.source .*with N and M of at least 10"):
        open_source(f"trajectories:{rest}")
