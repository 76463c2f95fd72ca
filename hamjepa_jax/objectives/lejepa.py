"""The isotropic baseline: LeJEPA's prediction loss with SIGReg (arXiv 2511.08544)."""

from collections.abc import Callable
from typing import Any

import jax

from hamjepa_jax import parts, rng
from hamjepa_jax.objectives.consistency import lejepa_prediction
from hamjepa_jax.objectives.objective import Context, Objective, as_one_batch, refuse, scale_diagnostics
from hamjepa_jax.objectives.projections import unit_directions
from hamjepa_jax.objectives.sigreg import WEIGHTS, sigreg
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array

SETTINGS = settings(
    sigreg_weight=field(0.02, "Weight λ of SIGReg.", least=0),
    num_directions=field(64, "Random directions that SIGReg projects the embeddings on.", least=1, most=2**16),
    weighting=field(
        "sum",
        'Weight of the prediction loss beside λ·SIGReg: "sum", 1; "convex", 1 − λ as in LeJEPA\'s paper.',
        choices=("sum", "convex"),
    ),
    pool_views=field(False, "Whether SIGReg is of all views as one sample; else of each view, and averaged."),
    # LeJEPA's package takes 17 points on [0, 3] by default, its paper 17 on [−5, 5].
    num_points=field(9, "Points of SIGReg's quadrature on [0, t_max].", least=2, most=2**12),
    t_max=field(
        3.0,
        "Upper end of SIGReg's quadrature, in reciprocal units of the embedding.",
        above=0,
        hint="3 with num_points=9 is usual",
    ),
    weight=field(
        "gaussian", "Weight of a point t of the quadrature: exp(−t²/2), or the same for all.", choices=WEIGHTS
    ),
    subsample=field(
        None, "Examples of a view, or of all views if pooled, that SIGReg uses; None uses all.", kind=int, least=1
    ),
    clip=field(
        None,
        "A direction whose statistic is below this counts as 0; None counts every direction.",
        kind=float,
        least=0,
    ),
    refresh_interval=field(1, "Steps between redraws of the directions.", least=1),
)


@parts.objectives.register(
    "lejepa",
    SETTINGS,
    title="LeJEPA/SIGReg",
    shown=("pred", "sigreg", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
)
def lejepa(context: Context, s: Values) -> Objective:
    """L_pred + λ·SIGReg(z) over all views, or (1 − λ)·L_pred + λ·SIGReg(z) (the paper's eq. "LeJEPA").

    L_pred is half of eq. 7, a mean over coordinates in place of the sum; see `lejepa_prediction`.

    Raises:
      UserError: if the subsample exceeds the batch.
    """
    return regularised_prediction(context, s)


def regularised_prediction(
    context: Context, s: Values, transform: Callable[[Array], Array] | None = None
) -> Objective:
    """L_pred + λ·SIGReg of a map of the embeddings, over all views.

    Args:
      context: of the run.
      s: values of SETTINGS.
      transform: z [v, b, k] -> [v, b, k], applied before SIGReg: H^{1/2}z of a fixed geometry H makes it HamSIGReg
        (see `ham_transform`). None leaves z as it is.

    Raises:
      UserError: if the subsample exceeds the batch.
    """
    check_sigreg(context, s)

    def loss(params: Any, z: Array, directions: Array, epoch: Array) -> tuple[Array, dict[str, Array]]:
        del params, epoch  # The encoder alone learns, and nothing changes with the epoch.
        prediction = lejepa_prediction(z, context.num_global)
        isotropy = isotropy_of(s, z if transform is None else transform(z), directions)
        total = weighted(s, prediction, isotropy)
        metrics = {"total": total, "pred": prediction, "sigreg": isotropy}
        return total, metrics | scale_diagnostics(as_one_batch(z), "z")

    return Objective(draw_directions(context, s), s.refresh_interval, loss)


def check_sigreg(context: Context, s: Values) -> None:
    """Refuses a subsample that is larger than its batch, and a share of SIGReg above one.

    Raises:
      UserError: naming the field.
    """
    views = context.num_global + context.num_local if s.pool_views else 1
    if s.subsample is not None and s.subsample > views * context.batch_size:
        whose = "all views together have" if s.pool_views else "a view has"
        refuse(
            "objective.lejepa.subsample",
            s.subsample,
            f"{whose} {views * context.batch_size} examples in a (micro-)batch; give at most that many, or None "
            f"for all",
        )
    if s.weighting == "convex" and s.sigreg_weight > 1:
        refuse(
            "objective.lejepa.sigreg_weight",
            s.sigreg_weight,
            "is above 1, which leaves the prediction a negative weight; lower it, or set weighting='sum'",
        )


def isotropy_of(s: Values, z: Array, directions: Array) -> Array:
    """SIGReg of z [v, b, k], of each view or of all views as one sample."""
    options = {name: getattr(s, name) for name in ("num_points", "t_max", "weight", "subsample", "clip")}
    return sigreg(as_one_batch(z)[None] if s.pool_views else z, directions, **options)


def weighted(s: Values, prediction: Array, isotropy: Array) -> Array:
    """Both terms as `weighting` says."""
    share = 1 - s.sigreg_weight if s.weighting == "convex" else 1
    return share * prediction + s.sigreg_weight * isotropy


def draw_directions(context: Context, s: Values) -> Callable[[Array | int], Array]:
    """(refresh count) -> SIGReg's directions [embed_dim, num_directions]."""
    return lambda count: unit_directions(
        rng.stream(context.seed, "sigreg", count), context.embed_dim, s.num_directions
    )
