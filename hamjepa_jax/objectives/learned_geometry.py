"""HamSIGReg with a learned spectrum: an encoder and the geometry H it is regularised in, each with its own loss."""

from typing import Any

import jax

from hamjepa_jax.objectives import hamsigreg
from hamjepa_jax.objectives.consistency import lejepa_prediction
from hamjepa_jax.objectives.lejepa import draw_directions
from hamjepa_jax.objectives.objective import Objective, as_one_batch, scale_diagnostics
from hamjepa_jax.objectives.sigreg import sigreg

Array = jax.Array
SPECTRUM = "spectrum"  # The group of the parameters that holds the spectrum's.


def learned_geometry(
    *,
    embed_dim: int,
    num_global: int,
    seed: int,
    sigreg_weight: float,
    refresh_interval: int,
    num_directions: int,
    d_f: int,
    bins: int,
    span_max: float,
    init_loglambda_span: float,
    eps_ridge: float,
    alpha_start: float,
    alpha_ramp: float,
    beta_start: float,
    beta_ramp: float,
    adversarial: bool,
    adv_mult: float,
    spectral_weight: float,
    penalty: dict[str, float | None],
    shape: dict[str, Any],
    **quadrature,
) -> Objective:
    """L_pred + λ·SIGReg(H^{1/2}z) for the encoder, ±λ·adv_mult·SIGReg(H^{1/2}z) + spectral_weight·R for H.

    One scalar carries both: its value is the encoder's loss, in which the spectrum is held fixed and to which its
    regulariser R is added as a constant; its gradient with respect to the spectrum's parameters is that of the
    spectrum's own loss, in which the embeddings are held fixed. Neither gradient reaches the other's parameters.

    Args:
      embed_dim, num_global, seed, sigreg_weight, refresh_interval, num_directions: as `lejepa`.
      d_f: channels a token for `hamsigreg.apply_grid_spectrum`. An embedding of [q; p] is two grids of half the
        token's channels each; H acts on every channel alike.
      bins, span_max, init_loglambda_span: see `hamsigreg.init_spectrum`.
      eps_ridge: see `hamsigreg.spectrum`.
      alpha_start, alpha_ramp: schedule of the learned part's weight α, see `hamsigreg.schedule`; epochs from 1.
      beta_start, beta_ramp: of the base's weight β.
      adversarial: whether the spectrum ascends SIGReg, so that the encoder meets its worst geometry, or descends.
      adv_mult: factor on SIGReg in the spectrum's loss.
      spectral_weight: of R, which is minimised either way.
      penalty: options of `hamsigreg.spectral_regularizer`.
      shape: the other options of `hamsigreg.spectrum`: h, w, base, gauge, …
      **quadrature: num_points, t_max, weight, subsample, clip, see `sigreg`.
    """
    shape = dict(shape, bins=bins, span_max=span_max)
    grid_size = shape["h"] * shape["w"] * d_f

    def isotropy_of(z: Array, lambda_2d: Array, directions: Array) -> Array:
        grids = z.reshape(*z.shape[:-1], -1, grid_size)
        moved = hamsigreg.apply_grid_spectrum(grids, lambda_2d, d_f=d_f).reshape(z.shape)
        return sigreg(moved, directions, **quadrature)

    def loss(raw: hamsigreg.Raw, z: Array, directions: Array, epoch: Array) -> tuple[Array, dict[str, Array]]:
        alpha = hamsigreg.schedule(epoch, alpha_start, alpha_ramp)
        beta = hamsigreg.schedule(epoch, beta_start, beta_ramp)
        options = dict(shape, alpha=alpha, beta=beta)
        lambda_2d = hamsigreg.spectrum(raw, eps_ridge=eps_ridge, **options)
        regularizer = hamsigreg.spectral_regularizer(raw, **penalty, **options)

        prediction = lejepa_prediction(z, num_global)
        isotropy = isotropy_of(z, jax.lax.stop_gradient(lambda_2d), directions)
        constant = spectral_weight * jax.lax.stop_gradient(regularizer)
        total = prediction + sigreg_weight * isotropy + constant

        direction = -1.0 if adversarial else 1.0
        at_fixed_z = isotropy_of(jax.lax.stop_gradient(z), lambda_2d, directions)
        own = direction * sigreg_weight * adv_mult * at_fixed_z + spectral_weight * regularizer

        health = hamsigreg.spectrum_health(jax.lax.stop_gradient(raw), **options)
        metrics = {"total": total, "pred": prediction, "sigreg": isotropy, "spectral": regularizer}
        metrics |= {"spectrum_loss": own, "spectrum_alpha": alpha, "spectrum_beta": beta}
        metrics |= {f"spectrum_{name}": value for name, value in health.items()}
        metrics |= scale_diagnostics(as_one_batch(z), "z")
        return total + (own - jax.lax.stop_gradient(own)), metrics

    def init() -> hamsigreg.Raw:
        return hamsigreg.init_spectrum(bins=bins, init_loglambda_span=init_loglambda_span, span_max=span_max)

    draw = draw_directions(seed, embed_dim, num_directions)
    return Objective(draw, refresh_interval, loss, reads=SPECTRUM, init=init)
