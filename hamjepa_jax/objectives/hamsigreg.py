"""HamSIGReg: LeJEPA with SIGReg of H^{1/2}z, for a geometry H that is fixed or learned with the encoder."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from hamjepa_jax import parts
from hamjepa_jax.objectives import learned_spectrum
from hamjepa_jax.objectives.consistency import lejepa_prediction
from hamjepa_jax.objectives.grid_spectra import GAUGES
from hamjepa_jax.objectives.lejepa import (
    check_sigreg,
    draw_directions,
    isotropy_of,
    regularised_prediction,
    weighted,
)
from hamjepa_jax.objectives.objective import Context, Grid, Objective, as_one_batch, refuse, scale_diagnostics
from hamjepa_jax.objectives.transforms import CHAIN_MODES, KINDS, apply_grid_spectrum, ham_transform
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array
SPECTRUM = "spectrum"  # The group of parameters that holds the spectrum's.
_POSITIVE = "H would not be positive definite otherwise"

CHAIN = settings(
    mode=field(
        "grid",
        'Where the Laplacian acts: "grid", on the token grid, by channel; "1d", along the flattened embedding.',
        choices=CHAIN_MODES,
    ),
    kappa=field(
        1.0,
        "Stiffness κ of the eigenvalues (1 − β) + β·(κν + ε)/mean, ν of a periodic Laplacian.",
        above=0,
        hint=_POSITIVE,
    ),
    eps=field(1e-3, "Ridge ε of these eigenvalues, which keeps the constant mode.", above=0, hint=_POSITIVE),
    beta=field(0.7, "Share β of the Laplacian; 0 is the identity.", least=0, most=1, hint=_POSITIVE),
    normalize=field(
        "trace", 'The mean that they are divided by: "trace" (arithmetic) or "logdet" (geometric).', choices=GAUGES
    ),
)
SHAPE = settings(
    base=field(
        "laplacian",
        'Eigenvalues before learning: "identity", "r2" (ridge + strength·r²) or "laplacian" (ridge + strength·ν).',
        choices=learned_spectrum.BASES,
    ),
    base_ridge=field(1.0, "Ridge of the base.", above=0, hint=_POSITIVE),
    base_strength=field(4.0, "Strength of the base.", least=0, hint=_POSITIVE),
    gauge=field(
        "logdet",
        'The mean eigenvalue that is kept at 1: "trace" (arithmetic) or "logdet" (geometric).',
        choices=GAUGES,
    ),
    delta_clip=field(None, "Bends log-increments to within this; None is off.", kind=float, above=0),
    log_clip=field(None, "Bounds log λ to ± this before the gauge; None is off.", kind=float, above=0),
    center_delta=field(False, "Removes the mean of the log-increments over the frequencies, in the regulariser."),
    binning=field("linear_radius", "How radial bins divide the frequencies.", choices=learned_spectrum.BINNINGS),
)
PENALTY = settings(
    cond_max=field(
        None, "Condition number above which the spectrum is penalised; None is off.", kind=float, least=1
    ),
    cond_weight=field(0.0, "Weight of the squared excess of the condition number.", least=0),
    curvature_weight=field(1e-3, "Weight of the squared second differences of the log-increments.", least=0),
    l2_weight=field(1e-4, "Weight of the log-increments' mean square.", least=0),
)
LEARNABLE = settings(
    bins=field(8, "Radial bins.", least=2, most=2**12),
    span_max=field(0.4, "Largest total of the learned log-increments, in nats.", above=0),
    init_loglambda_span=field(0.05, "Their total at the start, in nats.", above=0),
    eps_ridge=field(0.0, "Ridge that is blended in before the gauge; 0 is off.", least=0),
    alpha_start=field(0.0, "Epoch, counted from 1, up to which the weight α of the learned part is 0."),
    alpha_ramp=field(0.0, "Epochs over which α then grows to 1.", least=0),
    beta_start=field(0.0, "Epoch, counted from 1, up to which the weight β of the base is 0."),
    beta_ramp=field(0.0, "Epochs over which β then grows to 1.", least=0),
    adversarial=field(False, "Lets the spectrum ascend SIGReg; else it descends."),
    adv_mult=field(1.0, "Factor on λ·SIGReg in the spectrum's own loss.", least=0),
    spectral_weight=field(1.0, "Weight of the regulariser, which is minimised either way.", least=0),
    shape=SHAPE,
    penalty=PENALTY,
)
SETTINGS = settings(
    kind=field(
        "diag",
        'The geometry H: "identity", "diag" (eigenvalues linear 1 … 2), "chain" or "learnable".',
        choices=KINDS,
    ),
    chain=CHAIN,
    learnable=LEARNABLE,
)


@parts.objectives.register(
    "hamsigreg",
    SETTINGS,
    title="HamSIGReg",
    shown=("pred", "sigreg", "spectrum_lam_cond", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
    extends="lejepa",
)
def hamsigreg(context: Context, s: Values) -> Objective:
    """L_pred + λ·SIGReg(H^{1/2}z) over all views; a learnable H has a loss of its own, see `_learned_loss`.

    Args:
      context: of the run.
      s: values of SETTINGS and of `lejepa.SETTINGS` together.

    Raises:
      UserError: if the subsample exceeds the batch, or the geometry is impossible.
    """
    if s.kind != "learnable":
        return regularised_prediction(context, s, ham_geometry(s, context.grid))
    check_sigreg(context, s)
    _check_grid(s, context.grid)
    learnable, o = s.learnable, context.optimizer
    if not learnable.init_loglambda_span < learnable.span_max:
        refuse(
            "objective.hamsigreg.learnable.init_loglambda_span",
            learnable.init_loglambda_span,
            f"must lie between 0 and span_max {learnable.span_max}, both excluded",
        )

    def init() -> learned_spectrum.Raw:
        return learned_spectrum.init_spectrum(
            bins=learnable.bins,
            init_loglambda_span=learnable.init_loglambda_span,
            span_max=learnable.span_max,
        )

    return Objective(
        draw_directions(context, s),
        s.refresh_interval,
        _learned_loss(context, s),
        reads=SPECTRUM,
        init=init,
        optimizer=adamw_at_intervals(
            o.spectrum_learning_rate, interval=o.spectrum_interval, b1=o.b1, b2=o.b2, eps=o.eps
        ),
    )


def ham_geometry(
    s: Values, grid: Grid | None, raw: learned_spectrum.Raw | None = None, epoch: int | Array | None = None
) -> Callable[[Array], Array]:
    """The map z [..., k] -> H^{1/2}z of a run.

    Args:
      s: values of SETTINGS.
      grid: the token grid of the embedding, see `Context`; kinds that need none may get None.
      raw: parameters of a learnable H.
      epoch: counted from 1, for the schedules of a learnable H.

    Raises:
      UserError: if the kind needs a token grid and there is none, or one of a single token.
    """
    _check_grid(s, grid)
    if s.kind == "learnable":
        spectrum = learned_spectrum.spectrum(
            raw, eps_ridge=s.learnable.eps_ridge, **_spectrum_options(s, grid, epoch)
        )
        return lambda z: _on_grids(z, grid, lambda grids: apply_grid_spectrum(grids, spectrum, d_f=grid.channels))
    if s.kind != "chain":
        return lambda z: ham_transform(z, s.kind)
    chain = s.chain.asdict()
    if s.chain.mode == "1d":
        return lambda z: ham_transform(z, "chain", **chain)
    chain |= dict(h=grid.h, w=grid.w, d_f=grid.channels)
    return lambda z: _on_grids(z, grid, lambda grids: ham_transform(grids, "chain", **chain))


def _check_grid(s: Values, grid: Grid | None) -> None:
    """Refuses a geometry on the token grid if an embedding has none or one of a single token."""
    if not (s.kind == "learnable" or (s.kind == "chain" and s.chain.mode == "grid")):
        return
    if grid is None:
        refuse(
            "objective.hamsigreg.kind",
            s.kind,
            "its geometry is that of the token grid, which this encoder does not give; use encoder.mode='token' "
            "with encoder.projector='identity', or kind 'diag', or 'chain' with chain.mode='1d'",
        )
    if grid.h * grid.w < 2:
        refuse(
            "objective.hamsigreg.kind",
            s.kind,
            "a grid of one token has no neighbours or frequencies; use a lower encoder.token_layer or larger "
            "images",
        )


def _learned_loss(context: Context, s: Values) -> Callable:
    """L_pred + λ·SIGReg(H^{1/2}z) for the encoder, ±λ·adv_mult·SIGReg(H^{1/2}z) + spectral_weight·R for H.

    One scalar carries both: its value is the encoder's loss, in which the spectrum is held fixed and to which its
    regulariser R is added as a constant; its gradient with respect to the spectrum's parameters is that of the
    spectrum's own loss, in which the embeddings are held fixed. Neither gradient reaches the other's parameters.

    An embedding of [q; p] is two grids of half the token's channels each; H acts on every channel alike.
    """
    learnable = s.learnable

    def isotropy_in(z: Array, lambda_2d: Array, directions: Array) -> Array:
        def apply(grids: Array) -> Array:
            return apply_grid_spectrum(grids, lambda_2d, d_f=context.grid.channels)

        return isotropy_of(s, _on_grids(z, context.grid, apply), directions)

    def loss(
        raw: learned_spectrum.Raw, z: Array, directions: Array, epoch: Array
    ) -> tuple[Array, dict[str, Array]]:
        options = _spectrum_options(s, context.grid, epoch)
        lambda_2d = learned_spectrum.spectrum(raw, eps_ridge=learnable.eps_ridge, **options)
        regularizer = learned_spectrum.spectral_regularizer(raw, **learnable.penalty.asdict(), **options)

        prediction = lejepa_prediction(z, context.num_global)
        isotropy = isotropy_in(z, jax.lax.stop_gradient(lambda_2d), directions)
        constant = learnable.spectral_weight * jax.lax.stop_gradient(regularizer)
        total = weighted(s, prediction, isotropy) + constant

        direction = -1.0 if learnable.adversarial else 1.0
        at_fixed_z = isotropy_in(jax.lax.stop_gradient(z), lambda_2d, directions)
        own = (
            direction * s.sigreg_weight * learnable.adv_mult * at_fixed_z + learnable.spectral_weight * regularizer
        )

        health = learned_spectrum.spectrum_health(jax.lax.stop_gradient(raw), **options)
        metrics = {"total": total, "pred": prediction, "sigreg": isotropy, "spectral": regularizer}
        metrics |= {"spectrum_loss": own, "spectrum_alpha": options["alpha"], "spectrum_beta": options["beta"]}
        metrics |= {f"spectrum_{name}": value for name, value in health.items()}
        metrics |= scale_diagnostics(as_one_batch(z), "z")
        return total + (own - jax.lax.stop_gradient(own)), metrics

    return loss


def _spectrum_options(s: Values, grid: Grid, epoch: int | Array) -> dict[str, Any]:
    """The options of `learned_spectrum.spectrum` at an epoch, except eps_ridge."""
    learnable = s.learnable
    return dict(
        learnable.shape.asdict(),
        h=grid.h,
        w=grid.w,
        bins=learnable.bins,
        span_max=learnable.span_max,
        alpha=learned_spectrum.schedule(epoch, learnable.alpha_start, learnable.alpha_ramp),
        beta=learned_spectrum.schedule(epoch, learnable.beta_start, learnable.beta_ramp),
    )


def _on_grids(z: Array, grid: Grid, function: Callable[[Array], Array]) -> Array:
    """Applies a map of grids [..., h·w·channels] to the grids that lie one after the other in z [..., k]."""
    grids = z.reshape(*z.shape[:-1], -1, grid.h * grid.w * grid.channels)
    return function(grids).reshape(z.shape)


def adamw_at_intervals(
    learning_rate: float, *, interval: int, b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
    """AdamW without weight decay that acts at every `interval`-th call, the first included, on its gradient.

    At the other calls the parameters and the moments stay as they are.
    """
    adam = optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=0.0)
    return optax.conditionally_mask(adam, lambda call: call % interval == 0)
