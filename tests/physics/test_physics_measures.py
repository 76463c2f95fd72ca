"""Areas, covariances and sliced distances against cases with known answers."""

import numpy as np
import pytest

from hamjepa_jax import physics


def unit_grid(n=11):
    return np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n), indexing="ij")


def test_grid_area_of_linear_maps_is_the_determinant():
    q, p = unit_grid()
    for matrix in (np.array([[2.0, 0.3], [-1.0, 0.7]]), np.array([[1.0, 50.0], [0.0, 1.0]])):
        mapped = np.einsum("ij,jmn->imn", matrix, np.stack([q, p]))
        np.testing.assert_allclose(physics.grid_area(*mapped), abs(np.linalg.det(matrix)), rtol=1e-12)


def test_grid_area_does_not_cancel_where_the_grid_folds():
    q, p = unit_grid(11)
    np.testing.assert_allclose(physics.grid_area(np.abs(q - 0.5), p), 1.0, rtol=1e-12)


def test_grid_area_keeps_leading_axes():
    q, p = unit_grid(5)
    scale = np.array([1.0, 2.0, 3.0])[:, None, None]
    np.testing.assert_allclose(physics.grid_area(scale * q, scale * p), [1, 4, 9])
    with pytest.raises(ValueError, match="two grids"):
        physics.grid_area(q[0], p[0])


def test_hull_area_of_a_square_with_points_inside_and_on_its_edges():
    np.testing.assert_allclose(physics.hull_area(*unit_grid()), 1.0)
    corners = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 2.0], [1.0, 0.5]]).T
    np.testing.assert_allclose(physics.hull_area(*corners), 3.0)


def test_covariance_statistics_match_numpy():
    q, p = np.random.default_rng(0).normal(size=(2, 4, 30))
    got = physics.covariance_statistics(q, p)
    for t in range(4):
        covariance = np.cov(q[t], p[t])
        np.testing.assert_allclose(got["trace"][t], np.trace(covariance))
        np.testing.assert_allclose(got["logdet"][t], np.linalg.slogdet(covariance)[1])
        np.testing.assert_allclose(got["lambda_min"][t], np.linalg.eigvalsh(covariance)[0])


def test_sliced_discrepancy_of_a_shift_is_its_projection():
    cloud = np.random.default_rng(1).normal(size=(50, 2))
    angles = np.linspace(0, np.pi, 7)
    got = physics.sliced_discrepancy(cloud + [3.0, -1.0], cloud[::-1], angles)  # order does not matter
    np.testing.assert_allclose(got, np.abs(3 * np.cos(angles) - np.sin(angles)), atol=1e-12)


def test_sliced_discrepancy_is_the_cheapest_matching():
    # Against all permutations of four points.
    import itertools

    a, b = np.random.default_rng(2).normal(size=(2, 4, 2))
    direction = np.array([np.cos(0.7), np.sin(0.7)])
    best = min(np.abs(a @ direction - b[list(s)] @ direction).mean() for s in itertools.permutations(range(4)))
    np.testing.assert_allclose(physics.sliced_discrepancy(a, b, np.array([0.7])), [best])
    with pytest.raises(ValueError, match=r"\(4, 2\).*\(3, 2\)"):
        physics.sliced_discrepancy(a, b[:3], np.array([0.7]))


def test_energy_drift_bands_are_quartiles():
    energies = np.array([[1.0, 2.0, 4.0, 1.0, 1.0], [1.5, 2.0, 3.0, 2.0, 1.0]])
    np.testing.assert_allclose(physics.energy_drift_bands(energies)[:, 1], [0.0, 0.25, 0.5])
