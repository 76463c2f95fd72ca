"""The HamJEPA objective: prediction through a flow of phase space, with floors on scale and spectrum."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import parts, rng
from hamjepa_jax.objectives import floors
from hamjepa_jax.objectives.consistency import BOTH_DIRECTIONS, MATCHES, consistency
from hamjepa_jax.objectives.objective import Context, Objective, as_one_batch, refuse, scale_diagnostics, view_pairs
from hamjepa_jax.objectives.projections import orthonormal_projection
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array

SETTINGS = settings(
    match=field(
        "q", 'What is compared: "q", positions, and momenta with p_weight; "qp", the whole state.', choices=MATCHES
    ),
    p_weight=field(0.2, "Weight of the momenta's error if match is 'q'.", least=0),
    both_directions=field(
        "reverse_time",
        'Whether each view also predicts the other: "none", "reverse_time" (back with −Δt) or "forward" (back with '
        "+Δt).",
        choices=BOTH_DIRECTIONS,
    ),
    detach_target=field(True, "Stops the gradient into the predicted view."),
    energy_weight=field(0.0, "Weight of the squared energy drift along the flow.", least=0),
    budget_weight=field(0.2, "Weight λ_b of (mean q² − q_target)² + (mean p² − p_target)².", least=0),
    q_target=field(1.0, "Mean square that the budget asks of q.", least=0),
    p_target=field(1.0, "Mean square that the budget asks of p.", least=0),
    variance_weight=field(0.5, "Weight λ_v of the hinge on each coordinate's standard deviation.", least=0),
    variance_floor=field(0.2, "Standard deviation below which a coordinate is penalised.", least=0),
    variance_eps=field(1e-4, "Added to the variance under the square root.", above=0),
    variance_on=field("qp", "Coordinates that the variance floor holds up.", choices=("q", "qp")),
    logdet_weight=field(0.5, "Weight λ_l of the three spectral hinges, on q and on p.", least=0),
    logdet_floor_q=field(-1.5, "Floor on q's log-determinant, in nats per dimension; None is off.", optional=True),
    logdet_floor_p=field(-1.5, "Floor on p's log-determinant, in nats per dimension; None is off.", optional=True),
    pr_floor_q=field(0.12, "Floor on q's participation ratio per dimension; None is off.", optional=True),
    pr_floor_p=field(0.16, "Floor on p's participation ratio per dimension; None is off.", optional=True),
    eigmax_ceiling_q=field(
        0.35, "Ceiling on the share of the trace that q's largest eigenvalue has; None is off.", optional=True
    ),
    eigmax_ceiling_p=field(
        0.30, "Ceiling on the share of the trace that p's largest eigenvalue has; None is off.", optional=True
    ),
    logdet_eps=field(1e-4, "Ridge on the projected covariances.", above=0),
    projection_dim=field(128, "Columns of the random projections.", least=1, most=2**13),
    refresh_interval=field(16, "Steps between redraws of the projections.", least=1),
    mean_weight=field(0.05, "Weight λ_m of the squared batch mean.", least=0),
)


@parts.objectives.register(
    "hamjepa",
    SETTINGS,
    title="HamJEPA",
    shown=(
        "pred", "budget", "var", "logdet", "mean", "horizon", "q_mean_square", "p_mean_square", "q_min_std",
        "p_min_std", "q_logdet", "p_logdet", "q_pr", "p_pr", "q_eigmax", "p_eigmax", "potential_variance",
    ),
    uses_predictor=True,
    reads_qp=True,
)  # fmt: skip
def hamjepa(context: Context, s: Values) -> Objective:
    """L_pred + λ_b·L_budget + λ_v·L_var + λ_l·L_logdet + λ_m·L_mean (paper, section 4).

    The prediction loss is averaged over every pair of a global view and a later view (with two global views and no
    local ones: the one pair). The floors see the states of all views as one batch. The projections have at most d
    columns and fewer than there are states.

    Raises:
      UserError: if the energy drift has a weight and the predictor no energy.
    """
    predictor, half_dim = context.predictor, context.embed_dim // 2
    if s.energy_weight and predictor.energy is None:
        refuse(
            "objective.hamjepa.energy_weight",
            s.energy_weight,
            "the predictor has no energy; set it to 0, or predictor.kind='hamiltonian'",
        )
    num_states = (context.num_global + context.num_local) * context.batch_size
    k = min(s.projection_dim, half_dim, max(num_states - 1, 1))

    def draw(count: Array | int) -> dict[str, Array]:
        names = ("q", "p")
        return {
            x: orthonormal_projection(rng.stream(context.seed, f"logdet_{x}", count), half_dim, k) for x in names
        }

    def loss(
        params: Any, z: Array, projections: dict[str, Array], epoch: Array, gaps: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        scale = context.residual_scale(epoch)
        steps = None if context.horizon is None else context.horizon(epoch)

        def flow(z: Array, direction: int) -> Array:
            return context.predictor.flow(params, z, direction, scale, steps)

        if gaps is not None:
            flow = over_gaps(flow, gaps, context.max_gap)
        prediction = _prediction(context, s, params, z, scale, flow)

        states = as_one_batch(z)
        halves = dict(zip(("q", "p"), jnp.split(states, 2, axis=-1), strict=True))
        held_up = states if s.variance_on == "qp" else halves["q"]
        logdets = _logdet_floors(s, halves, projections)
        terms = {
            "pred": prediction,
            "budget": floors.energy_budget(states, q_target=s.q_target, p_target=s.p_target),
            "var": floors.variance_floor(held_up, floor=s.variance_floor, eps=s.variance_eps),
            "logdet": logdets["q"][0] + logdets["p"][0],
            "mean": floors.mean_penalty(states),
        }
        total = (
            terms["pred"]
            + s.budget_weight * terms["budget"]
            + s.variance_weight * terms["var"]
            + s.logdet_weight * terms["logdet"]
            + s.mean_weight * terms["mean"]
        )
        metrics = {"total": total, **terms, "residual_scale": scale}
        if steps is not None:
            metrics["horizon"] = steps
        for x in halves:
            metrics |= scale_diagnostics(halves[x], x) | _spectral_diagnostics(logdets[x][1], x, k)
        if predictor.potential is not None:
            potential = predictor.potential(jax.lax.stop_gradient(params), z[0, :, :half_dim])
            metrics["potential_variance"] = potential.var()
        return total, metrics

    return Objective(draw, s.refresh_interval, loss, reads_gaps=True)


def over_gaps(flow: Callable[[Array, int], Array], gaps: Array, longest: int) -> Callable[[Array, int], Array]:
    """The flow over each example's own time: that over one frame, applied as often as there are frames between.

    Args:
      flow: flow(z, direction) -> z, over one frame.
      gaps: [b] frames from the earlier to the later view, 1 … longest; may be traced.
      longest: applications in the program, whatever the gaps are.

    Returns:
      flow(z, direction) -> z for states [..., b, 2d].
    """

    def flow_over(z: Array, direction: int) -> Array:
        def frame(z: Array, number: Array) -> tuple[Array, None]:
            moves = jnp.expand_dims(number < gaps, (*range(z.ndim - 2), -1))
            return jnp.where(moves, flow(z, direction), z), None

        return jax.lax.scan(frame, z, jnp.arange(longest))[0]

    return flow_over


def _prediction(
    context: Context, s: Values, params: Any, z: Array, scale: Array, flow: Callable[[Array, int], Array]
) -> Array:
    """Mean prediction loss over every pair of a global view and a later view of z [v, b, k]."""
    predictor = context.predictor
    pairs = view_pairs(z, context.num_global)
    # All pairs as one batch: its mean is the mean over the pairs.
    earlier, later = (jnp.stack([z[i] for i in views]) for views in zip(*pairs, strict=True))
    energy = predictor.energy and (lambda z: predictor.energy(params, z, scale))
    return consistency(
        flow,
        earlier,
        later,
        match=s.match,
        p_weight=s.p_weight,
        both_directions=s.both_directions,
        detach_target=s.detach_target,
        energy_weight=s.energy_weight,
        energy=energy,
    )


def _logdet_floors(
    s: Values, halves: dict[str, Array], projections: dict[str, Array]
) -> dict[str, tuple[Array, dict[str, Array]]]:
    """{"q", "p"}: the spectral hinges on one half of the states, and their diagnostics."""
    hinges = {
        "q": dict(floor=s.logdet_floor_q, pr_floor=s.pr_floor_q, eigmax_ceiling=s.eigmax_ceiling_q),
        "p": dict(floor=s.logdet_floor_p, pr_floor=s.pr_floor_p, eigmax_ceiling=s.eigmax_ceiling_p),
    }
    return {x: floors.logdet_floor(halves[x], projections[x], **hinges[x], eps=s.logdet_eps) for x in halves}


def _spectral_diagnostics(stats: dict[str, Array], name: str, directions: int) -> dict[str, Array]:
    found = {f"{name}_logdet": stats["logdet_per_dim"]}
    if directions > 1:  # One alone has all of the variance, which is no sign of collapse.
        found |= {f"{name}_pr": stats["pr_norm"], f"{name}_eigmax": stats["eigmax_frac"]}
    return found
