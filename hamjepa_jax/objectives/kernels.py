"""Kernel discrepancies of a sample to the standard normal distribution in closed form, by radial kernels f(r²)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
NODES = 32  # of the quadrature over directions


def gaussian_mmd(x: Array, *, bandwidth: float, unbiased: bool) -> Array:
    """Squared maximum mean discrepancy of x to N(0, I) by the kernel exp(−‖x − y‖²/(2σ²)).

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
    """Mean of `gaussian_mmd` of the projections x·a over all unit vectors a, without drawing any.

    (a·r)² is ‖r‖²·s with s distributed as Beta(½, (d−1)/2), so that each mean over a is a Kummer function
    ₁F₁(½; d/2; ·) of ‖r‖²; it is taken by Gauss's quadrature for that distribution.

    Args:
      x: [n, d], d ≥ 2.
      bandwidth: σ of the kernel on the line, in units of x.
      unbiased: see `gaussian_mmd`.
    """
    variance = bandwidth**2
    shares, weights = beta_quadrature(x.shape[-1], NODES)

    def mean_over_directions(squares: Array, variance: float) -> Array:
        terms = (w * jnp.exp(-squares * (s / (2 * variance))) for s, w in zip(shares, weights, strict=True))
        return sum(terms)

    pairs = pair_mean(mean_over_directions(squared_distances(x), variance), unbiased)
    near_zero = mean_over_directions(jnp.square(x).sum(axis=-1), variance + 1).mean()
    factors = [(variance / (variance + extra)) ** 0.5 for extra in (1, 2)]
    return pairs - 2 * factors[0] * near_zero + factors[1]


def stein_discrepancy(x: Array, kernel: Callable[[Array], Array], *, unbiased: bool) -> Array:
    """Squared kernel Stein discrepancy of x to N(0, I), whose score is −x.

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
    lengths = jnp.square(x).sum(axis=-1)
    squares = lengths[:, None] + lengths[None, :] - 2 * jnp.matmul(x, x.T, precision="highest")
    return jnp.maximum(squares, 0.0) * (1 - jnp.eye(x.shape[0], dtype=x.dtype))


def pair_mean(values: Array, unbiased: bool) -> Array:
    """Mean of values [n, n] of pairs, or of those off the diagonal."""
    if not unbiased:
        return values.mean()
    n = values.shape[0]
    return (values * (1 - jnp.eye(n, dtype=values.dtype))).sum() / (n * (n - 1))


def beta_quadrature(d: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of Gauss's quadrature for Beta(½, (d−1)/2), the square of a unit vector's coordinate.

    They are eigenvalues and eigenvectors of the Jacobi matrix (Golub and Welsch, 1969) of Jacobi's polynomials with
    α = (d−3)/2, β = −½.

    Raises:
      ValueError: if d is below 2.
    """
    if d < 2:
        raise ValueError(f"a line has one direction only; the quadrature needs d ≥ 2, got {d}.")
    a, b, k = (d - 3) / 2, -0.5, np.arange(1, nodes, dtype=np.float64)
    total = 2 * k + a + b
    diagonal = np.concatenate([[(b - a) / (a + b + 2)], (b * b - a * a) / (total * (total + 2))])
    off = np.empty(nodes - 1)
    off[0] = 4 * (1 + a) * (1 + b) / ((2 + a + b) ** 2 * (3 + a + b))
    k, total = k[1:], total[1:]
    off[1:] = 4 * k * (k + a) * (k + b) * (k + a + b) / (total**2 * (total + 1) * (total - 1))
    roots = np.sqrt(off)
    points, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(roots, 1) + np.diag(roots, -1))
    return np.clip((1 + points) / 2, 0, 1), vectors[0] ** 2
