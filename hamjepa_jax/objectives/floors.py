"""Floors on scale and spectrum that keep states from collapsing, without asking for isotropy (paper, section 4.2).

Statistics are taken over the whole (global) batch in float32.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def energy_budget(z: Array, *, q_target: float, p_target: float) -> Array:
    """(mean q² − q_target)² + (mean p² − p_target)² of states z = [q; p], [..., 2d] -> scalar.

    Raises:
      ValueError: if the last axis is odd.
    """
    if z.shape[-1] % 2:
        raise ValueError(f"a phase-space state has an even last axis [q; p], got shape {z.shape}.")
    q, p = jnp.split(z, 2, axis=-1)
    return jnp.square(jnp.square(q).mean() - q_target) + jnp.square(jnp.square(p).mean() - p_target)


def variance_floor(x: Array, *, floor: float, eps: float = 1e-4) -> Array:
    """mean_i max(0, floor − √(var_i + eps))², var_i the biased variance of coordinate i.

    Args:
      x: [n, d] features.
      floor: standard deviation below which a coordinate is penalised, in units of x.
      eps: added to the variance, in squared units of x; keeps the gradient finite at a constant coordinate.

    Raises:
      ValueError: if x has another number of axes.
    """
    _check_matrix("variance_floor", x)
    std = jnp.sqrt(x.var(axis=0) + eps)
    return jnp.square(jnp.maximum(0.0, floor - std)).mean()


def mean_penalty(z: Array) -> Array:
    """mean_i (mean over the batch of z_i)²: [n, k] -> scalar.

    Raises:
      ValueError: if z has another number of axes.
    """
    _check_matrix("mean_penalty", z)
    return jnp.square(z.mean(axis=0)).mean()


def logdet_floor(
    x: Array,
    projection: Array,
    *,
    floor: float | None,
    pr_floor: float | None,
    eigmax_ceiling: float | None,
    eps: float = 1e-4,
) -> tuple[Array, dict[str, Array]]:
    """Squared hinges on the spectrum of a projected covariance C (paper, section 4.2).

    With Y = (x − mean x)·R and C = YᵀY/(n − 1) + eps·I: max(0, floor − logdet(C)/k)²
    + max(0, pr_floor − PR/k)² + max(0, λ_max/tr(C) − eigmax_ceiling)², PR = tr(C)²/tr(C²).

    Args:
      x: [n, d] features.
      projection: R, [d, k] with orthonormal columns.
      floor: on the log-determinant per dimension, in nats; None is off.
      pr_floor: on the participation ratio per dimension, in (0, 1]; None is off.
      eigmax_ceiling: on the largest eigenvalue's share of the trace, in (0, 1]; None is off.
      eps: ridge, in squared units of x.

    Returns:
      The loss (scalar; 0 for fewer than two examples) and {"logdet_per_dim", "pr", "pr_norm", "eigmax_frac", "tr"}.

    Raises:
      ValueError: if x and the projection do not fit together.
    """
    _check_matrix("logdet_floor", x)
    if projection.ndim != 2 or projection.shape[0] != x.shape[1]:
        raise ValueError(f"projection {projection.shape} does not fit features {x.shape}: expected [d, k], [n, d].")
    n, k = x.shape[0], projection.shape[1]
    y = jnp.matmul(x - x.mean(axis=0, keepdims=True), projection, precision="highest")
    y = y - y.mean(axis=0, keepdims=True)
    covariance = jnp.matmul(y.T, y, precision="highest") / max(n - 1, 1)
    covariance = 0.5 * (covariance + covariance.T) + eps * jnp.eye(k, dtype=y.dtype)
    trace = jnp.trace(covariance)
    pr = jnp.square(trace) / jnp.square(covariance).sum()
    stats = {
        "logdet_per_dim": _logdet(covariance) / k,
        "pr": pr,
        "pr_norm": pr / k,
        "eigmax_frac": _largest_eigenvalue(covariance) / trace,
        "tr": trace,
    }
    loss = jnp.zeros((), y.dtype)
    if n < 2:
        return loss, stats
    if floor is not None:
        loss += jnp.square(jnp.maximum(0.0, floor - stats["logdet_per_dim"]))
    if pr_floor is not None:
        loss += jnp.square(jnp.maximum(0.0, pr_floor - stats["pr_norm"]))
    if eigmax_ceiling is not None:
        loss += jnp.square(jnp.maximum(0.0, stats["eigmax_frac"] - eigmax_ceiling))
    return loss, stats


def _check_matrix(name: str, x: Array) -> None:
    if x.ndim != 2:
        raise ValueError(f"{name} expects [n, d] features, got shape {x.shape}.")


@jax.custom_jvp
def _logdet(matrix: Array) -> Array:
    """log det of a symmetric positive definite matrix, whose derivative reuses the factorisation."""
    return _logdet_and_inverse(matrix)[0]


@_logdet.defjvp
def _logdet_jvp(primals, tangents):
    value, inverse = _logdet_and_inverse(*primals)
    return value, jnp.sum(inverse * tangents[0])


@jax.custom_batching.sequential_vmap  # Plain vmap would run both branches, for every seed at every step.
def _logdet_and_inverse(matrix: Array) -> tuple[Array, Array]:
    """By Cholesky, or by LU if rounding of a nearly singular covariance makes Cholesky fail.

    The floor exists for collapsed batches, so they too must give a number.
    """
    factor = jnp.linalg.cholesky(matrix)

    def by_cholesky():
        half = jax.lax.linalg.triangular_solve(
            factor, jnp.eye(len(matrix), dtype=matrix.dtype), left_side=True, lower=True
        )
        inverse = jnp.matmul(half.T, half, precision="highest")
        return 2 * jnp.log(jnp.diagonal(factor)).sum(), inverse

    def by_lu():
        return jnp.linalg.slogdet(matrix)[1], jnp.linalg.inv(matrix)

    return jax.lax.cond(jnp.isfinite(factor).all(), by_cholesky, by_lu)


# 2^12 = 4096: eigenvalues 1% below the largest fade to 1e-18 of it.
_SQUARINGS = 12


def _largest_eigenvalue(matrix: Array) -> Array:
    """λ_max of a symmetric positive semi-definite matrix by repeated squaring and a Rayleigh quotient.

    Matrix products only: eigendecompositions of small matrices are slow on accelerators. The gradient vvᵀ with v
    held fixed is the exact one.
    """
    power = jax.lax.stop_gradient(matrix)
    for _ in range(_SQUARINGS):
        power = power / jnp.trace(power)
        power = jnp.matmul(power, power, precision="highest")
    column = jnp.argmax(jnp.diagonal(power))
    v = power[:, column]
    v = jax.lax.stop_gradient(v / jnp.linalg.norm(v))
    return jnp.einsum("i,ij,j->", v, matrix, v, precision="highest")
