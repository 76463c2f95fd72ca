"""The learned spectrum of HamSIGReg: eigenvalues of H by radial frequency of the token grid.

Its parameters are {"raw_span": scalar, "raw_shape": [bins − 1]}; the spectrum, its regulariser and its health are
pure functions of them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hamjepa_jax.objectives.grid_spectra import GAUGES, grid_laplacian, mean_eigenvalue, one_of, squared_radius

Array = jax.Array
Raw = dict[str, Array]

BASES = ("identity", "r2", "laplacian")
BINNINGS = ("linear_radius", "linear_radius_sq", "quantile_radius")


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
    one_of("binning", binning, BINNINGS)
    radius = np.sqrt(squared_radius(h, w)).astype(np.float32)
    shares = np.linspace(0.0, 1.0, bins + 1, dtype=np.float32)[1:-1]
    if binning == "quantile_radius":
        edges = np.quantile(radius, shares).astype(np.float32)
        return np.searchsorted(edges, radius)
    value = radius if binning == "linear_radius" else squared_radius(h, w).astype(np.float32)
    return np.searchsorted(shares, value / max(value.max(), np.finfo(np.float32).tiny))


def spectrum(raw: Raw, *, eps_ridge: float = 0.0, **options) -> Array:
    """Eigenvalues of H on the token grid's frequencies, learned by radius.

    λ = ((1 − β) + β·b)·exp(α·δ), with b the base over its arithmetic mean and δ the learned log-increment of the
    frequency's bin. A clip then bounds log λ. The ridge makes of λ, over its arithmetic mean, (λ + ε)/(1 + ε). Last
    comes the gauge, so that its mean of the eigenvalues is 1.

    Args:
      raw: see `init_spectrum`; raw_shape [bins − 1].
      eps_ridge: ε, the share of the identity that is blended in; 0 is off.
      **options:
        h, w: rows and columns of the token grid.
        bins: number of radial bins.
        base: "identity"; "r2", ridge + strength·r² with r in cycles per token; "laplacian", ridge + strength·ν with
          ν the eigenvalues of the periodic five-point Laplacian.
        base_ridge, base_strength: 1 and 4 unless given.
        span_max: largest total log-increment, in nats.
        gauge: the mean to divide by, "trace" (arithmetic) or "logdet" (geometric).
        delta_clip: see `log_increments`; None (off) unless given.
        log_clip: bounds log λ to ± this before the ridge and the gauge, so that the condition number is at most
          e^{2·log_clip}; None (off) unless given.
        center_delta: whether to subtract the mean of δ over the frequencies; off unless given. Only the regulariser
          feels it, since the gauge removes any constant.
        binning: see `radial_bins`; "linear_radius" unless given.
        alpha, beta: weights α of the learned part and β of the base in [0, 1] (see `schedule`); may be traced; 1
          unless given.

    Returns:
      [h, w], in the order of `numpy.fft.fft2`.

    Raises:
      ValueError: for an unknown name, or raw parameters that do not fit `bins`.
      TypeError: for a missing or an unknown option.
    """
    o = _Options(**options)
    _, _, unridged = _spectrum(raw, o)
    ridged = (unridged / unridged.mean() + eps_ridge) / (1.0 + eps_ridge)
    return ridged / mean_eigenvalue(ridged, o.gauge, jnp)


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
      **options: those of `spectrum` except eps_ridge.

    Returns:
      The penalty, a scalar; it is minimised even where the spectrum is trained adversarially.
    """
    g, delta, unridged = _spectrum(raw, _Options(**options))
    penalty = curvature_weight * jnp.square(jnp.diff(g, 2)).sum() + l2_weight * jnp.square(delta).mean()
    if cond_max is not None:
        excess = jnp.maximum(0.0, unridged.max() / unridged.min() - cond_max)
        penalty += cond_weight * jnp.square(excess)
    return penalty


def spectrum_health(raw: Raw, **options) -> dict[str, Array]:
    """Numbers to watch, of the spectrum before its ridge; options as `spectrum` except eps_ridge.

    Returns:
      {"lam_min", "lam_max", "lam_cond", "loglam_min", "loglam_max"} and "g0", "g_last", the first and last
      log-increments; scalars.
    """
    g, _, unridged = _spectrum(raw, _Options(**options))
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
    """0 up to epoch `start`, then linear to 1 over `ramp` epochs; with a ramp of 0, 1 from the next epoch on.

    Raises:
      ValueError: if the ramp is negative.
    """
    if ramp < 0:
        raise ValueError(f"a ramp lasts 0 epochs or more, got {ramp}.")
    epoch = jnp.asarray(epoch, jnp.float32)
    if ramp == 0:
        return (epoch > start).astype(jnp.float32)
    return jnp.clip((epoch - start) / ramp, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class _Options:
    """The options of `spectrum`."""

    h: int
    w: int
    bins: int
    base: str
    span_max: float
    gauge: str
    base_ridge: float = 1.0
    base_strength: float = 4.0
    delta_clip: float | None = None
    log_clip: float | None = None
    center_delta: bool = False
    binning: str = "linear_radius"
    alpha: float | Array = 1.0
    beta: float | Array = 1.0


def _spectrum(raw: Raw, o: _Options) -> tuple[Array, Array, Array]:
    """(g [bins], δ [h, w], λ before the ridge [h, w]); see `spectrum`."""
    one_of("base", o.base, BASES)
    one_of("gauge", o.gauge, GAUGES)
    if raw["raw_shape"].shape != (o.bins - 1,):
        raise ValueError(f"{o.bins} bins need raw_shape [{o.bins - 1}], got shape {raw['raw_shape'].shape}.")
    g = log_increments(raw, span_max=o.span_max, delta_clip=o.delta_clip)
    delta = g[radial_bins(o.h, o.w, bins=o.bins, binning=o.binning)]
    if o.center_delta:
        delta = delta - delta.mean()
    bases = {
        "identity": np.ones((o.h, o.w)),
        "r2": o.base_ridge + o.base_strength * squared_radius(o.h, o.w),
        "laplacian": o.base_ridge + o.base_strength * grid_laplacian(o.h, o.w),
    }
    normalised = (bases[o.base] / bases[o.base].mean()).astype(delta.dtype)
    eigenvalues = ((1.0 - o.beta) + o.beta * normalised) * jnp.exp(o.alpha * delta)
    if o.log_clip is not None:
        eigenvalues = jnp.exp(jnp.clip(jnp.log(eigenvalues), -o.log_clip, o.log_clip))
    return g, delta, eigenvalues / mean_eigenvalue(eigenvalues, o.gauge, jnp)
