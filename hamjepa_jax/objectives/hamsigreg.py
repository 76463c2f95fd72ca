"""HamSIGReg: SIGReg of H^{1/2}z, for fixed geometries H and for a spectrum that is learned.

`ham_transform` applies H^{1/2}; the learned kind's parameters are {"raw_span": scalar, "raw_shape": [bins − 1]},
and its spectrum, regulariser and health are pure functions of them. Grid kinds read the last axis of z as
(h, w, d_f) in row-major order and act on each channel by the two-dimensional Fourier basis. A state [q; p] of
tokens is two such vectors of d_f/2 channels: reshape it to [..., 2, h·w·d_f/2] first.
"""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Raw = dict[str, Array]

KINDS = ("identity", "diag", "chain", "learnable")
CHAIN_MODES = ("1d", "grid")
GAUGES = ("trace", "logdet")
BASES = ("identity", "r2", "laplacian")
BINNINGS = ("linear_radius", "linear_radius_sq", "quantile_radius")


def ham_transform(z: Array, kind: str, **options) -> Array:
    """H^{1/2}z.

    Args:
      z: [..., k] embeddings; computed in float32 at least.
      kind: "identity"; "diag"; "chain"; "learnable".
      **options: none for identity and diag. For chain: mode "1d" (periodic Laplacian along the flattened vector) or
        "grid" (on the token grid, per channel; needs h, w, d_f), and kappa, eps, beta, normalize (see
        `chain_spectrum`). For learnable: h, w, d_f, init_loglambda_span and what `spectrum` takes, its alpha and
        beta under the names alpha_init and beta_init; raw_span and raw_shape are the parameters, by default those
        of `init_spectrum`. cond_max and cond_weight are let through, so that one set of options serves the
        regulariser too.

    Returns:
      [..., k], the shape of z.

    Raises:
      ValueError: for an unknown kind or option value, or if k is not h·w·d_f.
      TypeError: for a missing or an unknown option.
    """
    z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
    transforms = {"identity": _identity, "diag": _diagonal, "chain": _chain, "learnable": _learnable}
    _one_of("kind", kind, KINDS)
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
    _one_of("normalize", normalize, GAUGES)
    stiffened = kappa * frequencies + eps
    return (1 - beta) + beta * stiffened / _mean(stiffened, normalize, np)


# -- The learned spectrum -------------------------------------------------------------


def init_spectrum(*, bins: int, init_loglambda_span: float, span_max: float) -> Raw:
    """Raw parameters whose log-spectrum rises evenly from bin to bin by `init_loglambda_span` in all.

    Raises:
      ValueError: if there are fewer than two bins or the span is not in (0, span_max).
    """
    if bins < 2:
        raise ValueError(f"a learned spectrum needs at least 2 bins, got {bins}.")
    if not 0 < init_loglambda_span < span_max:
        raise ValueError(f"init_loglambda_span must lie in (0, span_max = {span_max}), got {init_loglambda_span}.")
    share = init_loglambda_span / span_max
    return {"raw_span": jnp.float32(np.log(share / (1 - share))), "raw_shape": jnp.zeros(bins - 1, jnp.float32)}


def log_increments(raw: Raw, *, span_max: float, delta_clip: float | None) -> Array:
    """Learned log-eigenvalues g by radial bin, monotone from 0: [bins].

    The steps between bins are softplus(raw_shape), scaled so that they add up to span_max·sigmoid(raw_span). A clip
    bends them to clip·tanh(g/clip).
    """
    steps = jax.nn.softplus(raw["raw_shape"])
    g = span_max * jax.nn.sigmoid(raw["raw_span"]) * jnp.cumsum(steps) / steps.sum()
    g = jnp.concatenate([jnp.zeros(1, g.dtype), g])
    return g if delta_clip is None else delta_clip * jnp.tanh(g / delta_clip)


def radial_bins(h: int, w: int, *, bins: int, binning: str) -> np.ndarray:
    """The bin of every frequency of an h×w grid by its radius r, in cycles per token: [h, w] integers.

    Bins end at their upper edge, inclusive: equal parts of the range of r ("linear_radius"), of r²
    ("linear_radius_sq"), or quantiles of r over the grid ("quantile_radius").
    """
    _one_of("binning", binning, BINNINGS)
    radius = np.sqrt(_squared_radius(h, w)).astype(np.float32)
    shares = np.linspace(0.0, 1.0, bins + 1, dtype=np.float32)[1:-1]
    if binning == "quantile_radius":
        edges = np.quantile(radius, shares).astype(np.float32)
        return np.searchsorted(edges, radius)
    value = radius if binning == "linear_radius" else _squared_radius(h, w).astype(np.float32)
    return np.searchsorted(shares, value / max(value.max(), np.finfo(np.float32).tiny))


def spectrum(raw: Raw, *, eps_ridge: float = 0.0, **options) -> Array:
    """Eigenvalues of H on the token grid's frequencies, learned by radius.

    λ ∝ ((1 − β) + β·b)·exp(α·δ), with b the base over its mean and δ the learned log-increment of the frequency's
    bin; then λ over its mean, and last (λ + ε)/(1 + ε).

    Args:
      raw: see `init_spectrum`; raw_shape [bins − 1].
      eps_ridge: ε, blends the identity in; 0 is off.
      **options:
        h, w: rows and columns of the token grid.
        bins: number of radial bins.
        base: "identity"; "r2", ridge + strength·r² with r in cycles per token; "laplacian", ridge + strength·ν with
          ν the eigenvalues of the periodic five-point Laplacian.
        base_ridge, base_strength: 1 and 4 unless given.
        span_max: largest total log-increment, in nats.
        gauge: the mean that is divided by, "trace" (arithmetic) or "logdet" (geometric).
        delta_clip: see `log_increments`; None (off) unless given.
        center_delta: whether δ has its mean over the frequencies removed; off unless given. It then shows in the
          regulariser only, since the gauge removes any constant.
        binning: see `radial_bins`; "linear_radius" unless given.
        alpha, beta: weights α of the learned part and β of the base in [0, 1] (see `schedule`); may be traced; 1
          unless given.

    Returns:
      [h, w], in the order of `numpy.fft.fft2`.

    Raises:
      ValueError: for an unknown name, or raw parameters that do not fit `bins`.
      TypeError: for a missing or an unknown option.
    """
    _, _, unridged = _spectrum(raw, **options)
    return (unridged + eps_ridge) / (1.0 + eps_ridge)


def spectral_regularizer(
    raw: Raw,
    *,
    cond_max: float | None = None,
    cond_weight: float = 0.0,
    curvature_weight: float = 1e-3,
    l2_weight: float = 1e-4,
    **options,
) -> Array:
    """curvature_weight·Σ(second differences of g)² + l2_weight·mean δ² + cond_weight·max(0, cond − cond_max)².

    Args:
      raw: see `init_spectrum`.
      cond_max: condition number of the spectrum (before its ridge) that goes free; None is off.
      cond_weight: weight of the excess.
      curvature_weight: on the log-increments g by bin.
      l2_weight: on δ over the grid's frequencies (centred if center_delta).
      **options: those of `spectrum` but eps_ridge.

    Returns:
      The penalty, a scalar; it is minimised even where the spectrum is trained adversarially.
    """
    g, delta, unridged = _spectrum(raw, **options)
    penalty = curvature_weight * jnp.square(jnp.diff(g, 2)).sum() + l2_weight * jnp.square(delta).mean()
    if cond_max is not None:
        excess = jnp.maximum(0.0, unridged.max() / unridged.min() - cond_max)
        penalty += cond_weight * jnp.square(excess)
    return penalty


def spectrum_health(raw: Raw, **options) -> dict[str, Array]:
    """Numbers to watch, of the spectrum before its ridge; options as `spectrum` but eps_ridge.

    Returns:
      {"lam_min", "lam_max", "lam_cond", "loglam_min", "loglam_max"} and "g0", "g_last", the first and last
      log-increments; scalars.
    """
    g, _, unridged = _spectrum(raw, **options)
    low, high = unridged.min(), unridged.max()
    return {
        "lam_min": low,
        "lam_max": high,
        "lam_cond": high / low,
        "loglam_min": jnp.log(low),
        "loglam_max": jnp.log(high),
        "g0": g[0],
        "g_last": g[-1],
    }


def schedule(epoch: float | Array, start: float, ramp: float) -> Array:
    """0 up to epoch `start`, then linear to 1 over `ramp` epochs; a ramp of 0 jumps to 1 at `start`.

    Raises:
      ValueError: if the ramp is negative.
    """
    if ramp < 0:
        raise ValueError(f"a ramp lasts 0 epochs or more, got {ramp}.")
    epoch = jnp.asarray(epoch, jnp.float32)
    if ramp == 0:
        return (epoch >= start).astype(jnp.float32)
    return jnp.clip((epoch - start) / ramp, 0.0, 1.0)


def _spectrum(
    raw,
    *,
    h,
    w,
    bins,
    base,
    span_max,
    gauge,
    base_ridge=1.0,
    base_strength=4.0,
    delta_clip=None,
    center_delta=False,
    binning="linear_radius",
    alpha=1.0,
    beta=1.0,
):
    """(g [bins], δ [h, w], λ before the ridge [h, w]); see `spectrum`."""
    _one_of("base", base, BASES)
    _one_of("gauge", gauge, GAUGES)
    if raw["raw_shape"].shape != (bins - 1,):
        raise ValueError(f"{bins} bins need raw_shape [{bins - 1}], got shape {raw['raw_shape'].shape}.")
    g = log_increments(raw, span_max=span_max, delta_clip=delta_clip)
    delta = g[radial_bins(h, w, bins=bins, binning=binning)]
    if center_delta:
        delta = delta - delta.mean()
    shapes = {
        "identity": np.ones((h, w)),
        "r2": base_ridge + base_strength * _squared_radius(h, w),
        "laplacian": base_ridge + base_strength * _grid_laplacian(h, w),
    }
    normalised = (shapes[base] / _mean(shapes[base], gauge, np)).astype(delta.dtype)
    eigenvalues = ((1.0 - beta) + beta * normalised) * jnp.exp(alpha * delta)
    return g, delta, eigenvalues / _mean(eigenvalues, gauge, jnp)


def _identity(z):
    return z


def _diagonal(z):
    eigenvalues = np.linspace(1.0, 2.0, z.shape[-1])
    root = np.sqrt(eigenvalues / _mean(eigenvalues, "logdet", np)).astype(z.dtype)
    return z * root.reshape((1,) * (z.ndim - 1) + (-1,))


def _chain(z, *, mode, kappa, eps, beta, normalize, h=None, w=None, d_f=None):
    _one_of("mode", mode, CHAIN_MODES)
    chain = dict(kappa=kappa, eps=eps, beta=beta, normalize=normalize)
    if mode == "grid":
        if None in (h, w, d_f):
            raise ValueError(f"chain on the grid needs h, w and d_f, got {h}, {w} and {d_f}.")
        return apply_grid_spectrum(z, jnp.asarray(chain_spectrum(_grid_laplacian(h, w), **chain)), d_f=d_f)
    k = z.shape[-1]
    root = np.sqrt(chain_spectrum(_laplacian(k)[: k // 2 + 1], **chain)).astype(z.dtype)
    # As rows of a matrix: XLA on CPUs refuses transforms of some higher-dimensional layouts. A batch that is spread
    # over devices is gathered for it; a matrix, as on the grid, would be of thousands of rows here.
    modes = jnp.fft.rfft(z.reshape(-1, k)) * root.reshape(1, -1)
    return jnp.fft.irfft(modes, n=k).astype(z.dtype).reshape(z.shape)


def _learnable(
    z, *, d_f, bins, span_max, init_loglambda_span, raw_span=None, raw_shape=None, alpha_init=1.0, beta_init=1.0,
    cond_max=None, cond_weight=0.0, **options,
):  # fmt: skip
    raw = init_spectrum(bins=bins, init_loglambda_span=init_loglambda_span, span_max=span_max)
    if raw_span is not None:
        raw["raw_span"] = jnp.asarray(raw_span)
    if raw_shape is not None:
        raw["raw_shape"] = jnp.asarray(raw_shape)
    lambda_2d = spectrum(raw, bins=bins, span_max=span_max, alpha=alpha_init, beta=beta_init, **options)
    return apply_grid_spectrum(z, lambda_2d, d_f=d_f)


def _laplacian(n):
    """Eigenvalues of the periodic second difference by frequency: [n]."""
    return 2.0 - 2.0 * np.cos(2.0 * np.pi * np.arange(n) / n)


def _grid_laplacian(h, w):
    return _laplacian(h)[:, None] + _laplacian(w)[None, :]


def _squared_radius(h, w):
    return np.fft.fftfreq(h)[:, None] ** 2 + np.fft.fftfreq(w)[None, :] ** 2


def _mean(values, gauge, xp):
    return values.mean() if gauge == "trace" else xp.exp(xp.log(values).mean())


def _one_of(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
