"""Measurements of clouds and trajectories for the demonstrations, in NumPy float64."""

import numpy as np

from hamjepa_jax.physics import rollouts
from hamjepa_jax.physics.systems import System


def window_grid(system: System, num: int) -> tuple[np.ndarray, np.ndarray]:
    """A regular [num, num] grid of starts over the system's window: (q0, p0), q along the first axis."""
    q, p = np.linspace(-system.q_max, system.q_max, num), np.linspace(-system.p_max, system.p_max, num)
    return tuple(np.meshgrid(q, p, indexing="ij"))


def blob_grid(system: System, num: int) -> tuple[np.ndarray, np.ndarray]:
    """A [num, num] square grid of starts over the system's blob: (q0, p0), q along the first axis."""
    offsets = np.linspace(-system.blob_radius, system.blob_radius, num)
    center_q, center_p = system.blob_center
    return tuple(np.meshgrid(center_q + offsets, center_p + offsets, indexing="ij"))


def drift_map(system: System, q0: np.ndarray, p0: np.ndarray, *, method: str) -> np.ndarray:
    """Relative energy drift (H_T − H_0)/H_0 over the system's rollout: [...] -> [...].

    Starts whose energy is under 0.5% of the window's largest are nan: dividing by an energy near the minimum, which
    is 0, says nothing. Starts that overflow are inf.
    """
    q, p = rollouts.endpoint(system, q0, p0, method=method, step_size=system.step_size, num_steps=system.num_steps)
    first, last = rollouts.energy(system, q0, p0), rollouts.energy(system, q, p)
    largest = rollouts.energy(system, np.array(system.q_max), np.array(system.p_max))
    last = np.where(np.isfinite(last), last, np.inf)
    return np.where(first < 0.005 * largest, np.nan, (last - first) / np.maximum(first, 1e-300))


def energy_drift_bands(energies: np.ndarray) -> np.ndarray:
    """Quartiles of |H_t − H_0|/H_0 over starts: [t, n] -> [3, t] (lower quartile, median, upper quartile)."""
    return np.quantile(np.abs(energies - energies[:1]) / energies[:1], [0.25, 0.5, 0.75], axis=1)


def grid_area(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Area of a deformed grid, [..., m, n] each -> [...].

    Each cell is cut along the diagonal from (i+1, j) to (i, j+1) and the triangles' areas are added unsigned, so
    that folding does not cancel; q must not be wrapped. A map that preserves volume keeps this sum up to the
    curvature of the cells' edges, into any shape that it shears the grid. The hull's area has no such law.

    Raises:
      ValueError: if q and p differ in shape or hold no cell.
    """
    if q.shape != p.shape or q.ndim < 2 or min(q.shape[-2:]) < 2:
        raise ValueError(f"expected two grids [..., m, n] with m, n >= 2, got q {q.shape} and p {p.shape}.")

    def triangle(a, b, c):
        (aq, ap), (bq, bp), (cq, cp) = ((q[..., i, j], p[..., i, j]) for i, j in (a, b, c))
        return 0.5 * np.abs((bq - aq) * (cp - ap) - (cq - aq) * (bp - ap))

    low, high = slice(None, -1), slice(1, None)
    lower = triangle((low, low), (high, low), (low, high))
    upper = triangle((high, low), (high, high), (low, high))
    return (lower + upper).sum(axis=(-2, -1))


def hull_area(q: np.ndarray, p: np.ndarray) -> float:
    """Area of the convex hull of a cloud of points, by Andrew's monotone chain and the shoelace formula."""
    points = sorted(zip(np.ravel(q).tolist(), np.ravel(p).tolist(), strict=True))

    def chain(points):
        hull = []
        for point in points:
            while len(hull) > 1 and _turn(hull[-2], hull[-1], point) <= 0:
                hull.pop()
            hull.append(point)
        return hull[:-1]

    x, y = np.array(chain(points) + chain(points[::-1])).T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def _turn(a, b, c):
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def covariance_statistics(q: np.ndarray, p: np.ndarray) -> dict[str, np.ndarray]:
    """Spectrum of the (unbiased) covariance of the cloud at each time: q, p [t, n] -> {"trace", "logdet",
    "lambda_min"}, each [t]."""
    z = np.stack([q, p], axis=-1)
    z = z - z.mean(axis=1, keepdims=True)
    covariance = np.einsum("tni,tnj->tij", z, z) / (z.shape[1] - 1)
    eigenvalues = np.linalg.eigvalsh(covariance)
    return {
        "trace": eigenvalues.sum(-1),
        "logdet": np.log(eigenvalues).sum(-1),
        "lambda_min": eigenvalues[:, 0],
    }


def sliced_discrepancy(model: np.ndarray, reference: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Wasserstein-1 distance between two clouds projected on (cos θ, sin θ), for each angle θ.

    Args:
      model: [n, 2] states (q, p), q not wrapped.
      reference: [n, 2] states.
      angles: [m], in radians.

    Returns:
      [m] distances, in the units of the states. Equally many points on both sides: the distance is the mean gap
      between sorted projections.

    Raises:
      ValueError: if the clouds differ in shape or are not [n, 2].
    """
    if model.shape != reference.shape or model.ndim != 2 or model.shape[1] != 2:
        raise ValueError(f"expected two clouds [n, 2] of one size, got {model.shape} and {reference.shape}.")
    directions = np.stack([np.cos(angles), np.sin(angles)])
    gaps = np.sort(model @ directions, axis=0) - np.sort(reference @ directions, axis=0)
    return np.abs(gaps).mean(axis=0)
