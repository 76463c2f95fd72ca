"""SIGReg: the distance of random slices of the embedding from a standard normal."""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
WEIGHTS = ("gaussian", "uniform")


def sigreg(
    z: Array,
    directions: Array,
    *,
    num_points: int,
    t_max: float,
    weight: str,
    subsample: int | None = None,
    clip: float | None = None,
) -> Array:
    """Epps–Pulley statistic of sliced embeddings, averaged over slices and views (2511.08544, eq. "SIGReg").

    For y = z·a with unit a: n·Σ_j w_j·[(mean cos(t_j y) − e^{−t_j²/2})² + (mean sin(t_j y))²], the trapezoid rule
    on [0, t_max] doubled for negative t.

    Args:
      z: [v, n, k] embeddings; statistics are per view over its n examples (the global batch), in float32.
      directions: [k, m], unit columns, m ≥ 1.
      num_points: number of quadrature points t_j, at least 2.
      t_max: upper end of the quadrature, above 0, in reciprocal units of z.
      weight: "gaussian" (e^{−t²/2}) or "uniform".
      subsample: how many of a view's examples to use, evenly spaced over the batch (whose order is random); the
        same ones in every view. The statistic's n is then this number. None uses all.
      clip: a slice whose statistic is below this counts as 0 and sends no gradient; None counts every slice.

    Returns:
      The loss, a scalar.

    Raises:
      ValueError: if shapes do not fit, there are no directions, the quadrature has no width or fewer than two
        points, the weight is unknown, or there are fewer examples than the subsample.
    """
    if z.ndim != 3 or directions.ndim != 2 or z.shape[-1] != directions.shape[0]:
        raise ValueError(f"expected embeddings [v, n, k] and directions [k, m], got {z.shape}, {directions.shape}.")
    if directions.shape[1] == 0:
        raise ValueError(f"there are no directions, got shape {directions.shape}.")
    if not t_max > 0 or num_points < 2:
        raise ValueError(f"the quadrature needs t_max > 0 and two points or more, got {t_max} and {num_points}.")
    if weight not in WEIGHTS:
        raise ValueError(f"weight must be one of {', '.join(WEIGHTS)}, got {weight!r}.")
    if subsample is not None:
        z = z[:, _evenly_spaced(z.shape[1], subsample)]
    t, weights = _quadrature(num_points, t_max, weight)
    y = jnp.einsum("vnk,km->vnm", z.astype(jnp.float32), directions, precision="highest")
    ty = y[..., None] * t[None, None, None, :]  # [v, n, m, points]
    real_error = jnp.cos(ty).mean(axis=1) - np.exp(-0.5 * t**2)[None, None, :]
    imaginary_error = jnp.sin(ty).mean(axis=1)
    squares = jnp.square(real_error) + jnp.square(imaginary_error)
    statistic = z.shape[1] * (squares * weights[None, None, :]).sum(
        axis=-1
    )  # A sum, not a product: float32 on GPUs too
    if clip is not None:
        statistic = jnp.where(statistic < clip, 0.0, statistic)
    return statistic.mean()


def _evenly_spaced(n: int, size: int) -> np.ndarray:
    """`size` of the indices 0 … n − 1, spread evenly so that every device keeps its share of the examples."""
    if not 1 <= size <= n:
        raise ValueError(f"subsample must lie between 1 and the {n} examples of a view, got {size}.")
    return np.arange(size) * n // size


def _quadrature(num_points: int, t_max: float, weight: str) -> tuple[np.ndarray, np.ndarray]:
    """Points on [0, t_max] and trapezoid weights doubled for the negative half, [num_points] each."""
    t = np.linspace(0.0, t_max, num_points)
    delta = t_max / (num_points - 1)
    weights = np.full(num_points, 2 * delta)
    weights[[0, -1]] = delta
    if weight == "gaussian":
        weights = weights * np.exp(-0.5 * t**2)
    return t.astype(np.float32), weights.astype(np.float32)
