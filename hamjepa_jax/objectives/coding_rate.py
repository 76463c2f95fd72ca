"""The coding rate of features: the volume that they fill, in nats."""

import jax
import jax.numpy as jnp

Array = jax.Array


def coding_rate(x: Array, *, eps: float) -> tuple[Array, dict[str, Array]]:
    """½·logdet(I + d/(n·ε²)·XᵀX) of features (MCR²: Yu et al., 2020, eq. 7).

    The determinant is that of the smaller of XᵀX and XXᵀ, which have the same one.

    Args:
      x: [..., n, d] features, not centred; of each batch of n, in float32.
      eps: distortion ε, in units of x; above 0.

    Returns:
      The rates [...], and {"rate_per_dim"}: divided by d.

    Raises:
      ValueError: if x is no matrix or ε not above 0.
    """
    if x.ndim < 2 or not eps > 0:
        raise ValueError(f"coding_rate expects [..., n, d] features and ε > 0, got shape {x.shape} and {eps}.")
    n, d = x.shape[-2:]
    x = x.astype(jnp.float32)
    transposed = x.swapaxes(-1, -2)
    gram = jnp.matmul(*((transposed, x) if d <= n else (x, transposed)), precision="highest")
    identity = jnp.broadcast_to(jnp.eye(min(n, d), dtype=x.dtype), gram.shape)
    factor = jnp.linalg.cholesky(identity + d / (n * eps**2) * gram)
    rate = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)
    return rate, {"rate_per_dim": rate / d}
