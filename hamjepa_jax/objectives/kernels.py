"""Kernel discrepancies of a sample to the standard normal distribution in closed form, by radial kernels f(r²).

Numbers of equations and theorems are those of KerJEPA (arXiv 2512.19605), whose γ is 1/(2σ²).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
DEGREE = 20  # of the polynomial for the mean over directions


def gaussian_mmd(x: Array, *, bandwidth: float, unbiased: bool) -> Array:
    """Squared maximum mean discrepancy (eq. 5) of x to N(0, I) by the kernel exp(−‖x − y‖²/(2σ²)).

    mean k(x_i, x_j) − 2·(σ²/(σ²+1))^{d/2}·mean exp(−‖x_i‖²/(2(σ²+1))) + (σ²/(σ²+2))^{d/2}.

    Args:
      x: [n, d].
      bandwidth: σ, in units of x.
      unbiased: leaves the pairs i = j out of the first mean; the result may then be negative.
    """
    variance, d = bandwidth**2, x.shape[-1]
    pairs = pair_mean(jnp.exp(-squared_distances(x) / (2 * variance)), unbiased)
    near_zero = jnp.exp(-jnp.square(x).sum(axis=-1) / (2 * (variance + 1))).mean()
    factors = [(variance / (variance + extra)) ** (d / 2) for extra in (1, 2)]
    return pairs - 2 * factors[0] * near_zero + factors[1]


def sliced_gaussian_mmd(x: Array, *, bandwidth: float, unbiased: bool) -> Array:
    """Mean of `gaussian_mmd` of the projections x·a over all unit vectors a, without drawing any (eq. 12).

    (a·r)² is ‖r‖²·s with s distributed as Beta(½, (d−1)/2), so that each mean over a is a Kummer function of ‖r‖²,
    see `mean_over_directions`.

    Args:
      x: [n, d], d ≥ 2.
      bandwidth: σ of the kernel on the line, in units of x.
      unbiased: see `gaussian_mmd`.
    """
    variance, d = bandwidth**2, x.shape[-1]
    pairs = pair_mean(mean_over_directions(squared_distances(x) / variance, d), unbiased)
    near_zero = mean_over_directions(jnp.square(x).sum(axis=-1) / (variance + 1), d).mean()
    factors = [(variance / (variance + extra)) ** 0.5 for extra in (1, 2)]
    return pairs - 2 * factors[0] * near_zero + factors[1]


def mean_over_directions(squares: Array, d: int) -> Array:
    """Mean of exp(−(a·r)²/2) over all unit vectors a of d dimensions: ₁F₁(½; d/2; −‖r‖²/2), elementwise of ‖r‖².

    With u = d/(d + ‖r‖²) it is √u times a smooth function of u on [0, 1], taken as a polynomial. It is right to a
    share of 1e-5 (d = 2), or to rounding (d ≥ 4), for every ‖r‖².
    """
    u = d / (d + squares)
    last, before = jnp.zeros_like(u), jnp.zeros_like(u)
    t = 1 - 2 * u
    first, *others = kummer_coefficients(d)
    for coefficient in others[::-1]:  # Clenshaw's recurrence
        last, before = coefficient + 2 * t * last - before, last
    return jnp.sqrt(u) * (first + t * last - before)


def kummer_coefficients(d: int) -> list[float]:
    """Chebyshev coefficients in 1 − 2u of ₁F₁(½; d/2; −r/2)/√u, u = d/(d + r).

    Raises:
      ValueError: if d is below 2.
    """
    from scipy.special import hyp1f1  # Slow to import.

    if d < 2:
        raise ValueError(f"a line has one direction only; the mean over directions needs d ≥ 2, got {d}.")

    def smooth(t: np.ndarray) -> np.ndarray:
        u = (1 - t) / 2
        return hyp1f1(0.5, d / 2, -d * (1 / u - 1) / 2) / np.sqrt(u)

    return np.polynomial.chebyshev.chebinterpolate(smooth, DEGREE).tolist()


def stein_discrepancy(x: Array, kernel: Callable[[Array], Array], *, unbiased: bool) -> Array:
    """Squared kernel Stein discrepancy (eq. 9 and 10) of x to N(0, I), whose score is −x.

    The mean of u(x, y) = x·y·f + 2r²·f' − 2d·f' − 4r²·f'' over pairs, f a function of r² = ‖x − y‖².

    Args:
      x: [n, d].
      kernel: f, elementwise.
      unbiased: leaves out the pairs of a point with itself, whose mean ‖x‖² − 2d·f'(0) would draw x to zero.
    """
    squares, d = squared_distances(x), x.shape[-1]
    slope = lambda r: jax.jvp(kernel, (r,), (jnp.ones_like(r),))[1]  # noqa: E731
    first, second = jax.jvp(slope, (squares,), (jnp.ones_like(squares),))
    products = jnp.matmul(x, x.T, precision="highest")
    stein = products * kernel(squares) + 2 * squares * first - 2 * d * first - 4 * squares * second
    return pair_mean(stein, unbiased)


def sliced_gaussian_stein(x: Array, *, bandwidth: float, unbiased: bool) -> Array:
    """Mean of `stein_discrepancy` of the projections x·a by the Gaussian kernel over all unit vectors a.

    With r = x − y and f = exp(−(a·r)²/(2σ²)) it is the mean over a of (a·x)(a·y)·f + f/σ² − (a·r)²·f·(1/σ² + 1/σ⁴);
    a's part along r and its part across have means of their own (theorem 9, its last term with the sign of eq. 10).

    Args:
      x: [n, d], d ≥ 2.
      bandwidth: σ of the kernel on the line, in units of x.
      unbiased: see `stein_discrepancy`.
    """
    variance, d = bandwidth**2, x.shape[-1]
    squares = squared_distances(x)
    scaled = squares / variance
    mean, slope = jax.jvp(lambda q: mean_over_directions(q, d), (scaled,), (jnp.ones_like(scaled),))
    along = -2 * slope  # The mean of f times the squared cosine of a and r,
    across = (mean - along) / (d - 1)  # and of a and a direction across r.
    lengths, apart = jnp.square(x).sum(axis=-1), squares > 0
    steps = lengths[:, None] - lengths[None, :]
    # (x·r)(y·r)/r²; where r is zero, along and across are the same.
    projected = jnp.where(apart, jnp.square(steps) / jnp.where(apart, squares, 1.0) - squares, 0.0) / 4
    products = jnp.matmul(x, x.T, precision="highest") * across + projected * (along - across)
    stein = products + mean / variance - squares * along * (1 / variance + 1 / variance**2)
    return pair_mean(stein, unbiased)


def gaussian(bandwidth: float) -> Callable[[Array], Array]:
    """r² -> exp(−r²/(2σ²))."""
    return lambda squares: jnp.exp(-squares / (2 * bandwidth**2))


def inverse_multiquadric(bandwidth: float) -> Callable[[Array], Array]:
    """r² -> (1 + r²/σ²)^{−½}."""
    return lambda squares: jax.lax.rsqrt(1 + squares / bandwidth**2)


def squared_distances(x: Array) -> Array:
    """‖x_i − x_j‖² of the rows of x [n, d]: [n, n], zero on the diagonal."""
    if x.shape[-1] == 1:  # Exact, and without a product.
        return jnp.square(x - x.T)
    # In a collapse far from zero the difference below would lose its digits. A few rows' median is near most rows.
    some = x[:: -(-x.shape[0] // 9)]
    x = x - jax.lax.stop_gradient(jnp.median(some, axis=0, keepdims=True))
    lengths = jnp.square(x).sum(axis=-1)
    squares = lengths[:, None] + lengths[None, :] - 2 * jnp.matmul(x, x.T, precision="highest")
    return jnp.maximum(squares, 0.0) * (1 - jnp.eye(x.shape[0], dtype=x.dtype))


def pair_mean(values: Array, unbiased: bool) -> Array:
    """Mean of values [n, n] of pairs, or of those off the diagonal."""
    if not unbiased:
        return values.mean()
    n = values.shape[0]
    return (values * (1 - jnp.eye(n, dtype=values.dtype))).sum() / (n * (n - 1))
