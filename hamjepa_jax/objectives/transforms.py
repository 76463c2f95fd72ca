"""HamSIGReg's maps z -> H^{1/2}z, for fixed geometries H and for a learned spectrum.

Kinds on a grid read the last axis of z as (h, w, d_f) in row-major order and act on each channel by the
two-dimensional Fourier basis. A state [q; p] of tokens is two such vectors of d_f/2 channels: reshape it to
[..., 2, h·w·d_f/2] first.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hamjepa_jax.objectives.grid_spectra import GAUGES, grid_laplacian, laplacian, mean_eigenvalue, one_of
from hamjepa_jax.objectives.learned_spectrum import init_spectrum, spectrum

Array = jax.Array

KINDS = ("identity", "diag", "chain", "learnable")
CHAIN_MODES = ("1d", "grid")


def ham_transform(z: Array, kind: str, **options) -> Array:
    """H^{1/2}z.

    Args:
      z: [..., k] embeddings; computed in float32 at least.
      kind: "identity"; "diag"; "chain"; "learnable".
      **options: none for identity and diag. For chain: mode "1d" (periodic Laplacian along the flattened vector) or
        "grid" (on the token grid, per channel; needs h, w, d_f), and kappa, eps, beta, normalize (see
        `chain_spectrum`). For learnable: h, w, d_f, init_loglambda_span and what `spectrum` takes, its alpha and
        beta under the names alpha_init and beta_init; raw_span and raw_shape are the parameters, by default those
        of `init_spectrum`. cond_max and cond_weight are accepted and ignored, so that one set of options serves
        the regulariser too.

    Returns:
      [..., k], the shape of z.

    Raises:
      ValueError: for an unknown kind or option value, or if k is not h·w·d_f.
      TypeError: for a missing or an unknown option.
    """
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    transforms = {"identity": _identity, "diag": _diagonal, "chain": _chain, "learnable": _learnable}
    one_of("kind", kind, KINDS)
    return transforms[kind](z, **options)


def apply_grid_spectrum(z: Array, lambda_2d: Array, *, d_f: int) -> Array:
    """Multiplies the Fourier modes of each channel by √λ.

    Args:
      z: [..., h·w·d_f], tokens in row-major order.
      lambda_2d: [h, w] eigenvalues by frequency, in the order of `numpy.fft.fft2`.
      d_f: channels a token.

    Returns:
      [..., h·w·d_f].

    Raises:
      ValueError: if the sizes do not fit.
    """
    h, w = lambda_2d.shape
    if z.shape[-1] != h * w * d_f:
        raise ValueError(f"a {h}×{w} grid of {d_f} channels has {h * w * d_f} values, but z has shape {z.shape}.")
    # A matrix product and not fft2, for which XLA gathers a batch that is spread over devices; the grid is small.
    root = _circulant(jnp.sqrt(lambda_2d).astype(z.dtype))
    x = z.reshape(*z.shape[:-1], h * w, d_f)
    return jnp.einsum("st,...tc->...sc", root, x, precision="highest").reshape(z.shape)


def _circulant(spectrum_2d):
    """The matrix [h·w, h·w] over the grid's tokens, row-major, with these eigenvalues [h, w] by frequency."""
    h, w = spectrum_2d.shape
    rows, columns = np.divmod(np.arange(h * w), w)
    phase = np.outer(rows, rows) / h + np.outer(columns, columns) / w
    cosines = (np.cos(2 * np.pi * phase) / (h * w)).astype(spectrum_2d.dtype)
    kernel = jnp.matmul(cosines, spectrum_2d.reshape(-1), precision="highest")  # by the distance of two tokens
    row_distance = (rows[:, None] - rows[None, :]) % h
    column_distance = (columns[:, None] - columns[None, :]) % w
    return kernel[row_distance * w + column_distance]


def chain_spectrum(frequencies: np.ndarray, *, kappa: float, eps: float, beta: float, normalize: str) -> np.ndarray:
    """λ = (1 − β) + β·(κν + ε)/mean(κν + ε), a blend of the identity and a stiffened Laplacian.

    Args:
      frequencies: ν ≥ 0, eigenvalues of the Laplacian, any shape. In one dimension they are the ⌊k/2⌋ + 1 distinct
        ones of the real transform, and the mean weighs them equally.
      kappa: stiffness κ > 0.
      eps: ridge ε > 0 that keeps the constant mode.
      beta: blend in [0, 1]; 0 is the identity.
      normalize: the mean: "trace" (arithmetic) or "logdet" (geometric).

    Returns:
      Eigenvalues of H, the shape of `frequencies`.

    Raises:
      ValueError: if an option is out of its range.
    """
    if not (kappa > 0 and eps > 0 and 0 <= beta <= 1):
        raise ValueError(f"chain needs kappa > 0, eps > 0 and beta in [0, 1], got {kappa}, {eps} and {beta}.")
    one_of("normalize", normalize, GAUGES)
    stiffened = kappa * frequencies + eps
    return (1 - beta) + beta * stiffened / mean_eigenvalue(stiffened, normalize, np)


def _identity(z):
    return z


def _diagonal(z):
    eigenvalues = np.linspace(1.0, 2.0, z.shape[-1])
    root = np.sqrt(eigenvalues / mean_eigenvalue(eigenvalues, "logdet", np)).astype(z.dtype)
    return z * root.reshape((1,) * (z.ndim - 1) + (-1,))


def _chain(z, *, mode, kappa, eps, beta, normalize, h=None, w=None, d_f=None):
    one_of("mode", mode, CHAIN_MODES)
    chain = dict(kappa=kappa, eps=eps, beta=beta, normalize=normalize)
    if mode == "grid":
        if None in (h, w, d_f):
            raise ValueError(f"chain on the grid needs h, w and d_f, got {h}, {w} and {d_f}.")
        return apply_grid_spectrum(z, jnp.asarray(chain_spectrum(grid_laplacian(h, w), **chain)), d_f=d_f)
    k = z.shape[-1]
    root = np.sqrt(chain_spectrum(laplacian(k)[: k // 2 + 1], **chain)).astype(z.dtype)
    # As rows of a matrix: XLA on CPUs refuses transforms of some higher-dimensional layouts. The transform gathers
    # a batch that is spread over devices; a matrix product, as on the grid, would need thousands of rows here.
    modes = jnp.fft.rfft(z.reshape(-1, k)) * root.reshape(1, -1)
    return jnp.fft.irfft(modes, n=k).astype(z.dtype).reshape(z.shape)


def _learnable(
    z, *, d_f, bins, span_max, init_loglambda_span, raw_span=None, raw_shape=None, cond_max=None, cond_weight=0.0,
    **options,
):  # fmt: skip
    del cond_max, cond_weight  # Of the regulariser.
    raw = init_spectrum(bins=bins, init_loglambda_span=init_loglambda_span, span_max=span_max)
    if raw_span is not None:
        raw["raw_span"] = jnp.asarray(raw_span)
    if raw_shape is not None:
        raw["raw_shape"] = jnp.asarray(raw_shape)
    options = {name.removesuffix("_init"): value for name, value in options.items()}
    return apply_grid_spectrum(z, spectrum(raw, bins=bins, span_max=span_max, **options), d_f=d_f)
