"""The HamJEPA objective: prediction through a flow of phase space, with floors on scale and spectrum."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import rng
from hamjepa_jax.objectives import floors
from hamjepa_jax.objectives.consistency import consistency
from hamjepa_jax.objectives.objective import Objective, as_one_batch, scale_diagnostics
from hamjepa_jax.objectives.projections import orthonormal_projection

Array = jax.Array


def hamjepa(
    flow: Callable[..., Array],
    energy: Callable[..., Array] | None,
    potential: Callable[..., Array] | None,
    *,
    residual_scale: Callable[[Array], Array],
    half_dim: int,
    num_states: int,
    num_global: int,
    seed: int,
    match: str,
    p_weight: float,
    both_directions: str,
    detach_target: bool,
    energy_weight: float,
    budget_weight: float,
    q_target: float,
    p_target: float,
    variance_weight: float,
    variance_floor: float,
    variance_eps: float,
    variance_on: str,
    logdet_weight: float,
    logdet_floor_q: float | None,
    logdet_floor_p: float | None,
    pr_floor_q: float | None,
    pr_floor_p: float | None,
    eigmax_ceiling_q: float | None,
    eigmax_ceiling_p: float | None,
    logdet_eps: float,
    projection_dim: int,
    refresh_interval: int,
    mean_weight: float,
    horizon: Callable[[Array], Array] | None = None,
) -> Objective:
    """L_pred + λ_b·L_budget + λ_v·L_var + λ_l·L_logdet + λ_m·L_mean (paper, section 4).

    The prediction loss is averaged over every pair of a global view and a later view (with two global views and no
    local ones: the one pair). The floors see the states of all views as one batch.

    Args:
      flow: (params, z, direction, residual scale, horizon) -> z, as `nn.Predictor.flow`.
      energy: (params, z, residual scale) -> [...], or None.
      potential: (params, q) -> [...], the learned potential, whose variance is logged; or None.
      residual_scale: epoch (from 1) -> scale of the learned part of the energy.
      half_dim: d, the size of q and of p.
      num_states: states in a batch, views times examples; bounds the projections' size.
      num_global: how many of the views are global.
      seed: of the projections' stream.
      match, p_weight, both_directions, detach_target, energy_weight: see `consistency`.
      budget_weight, q_target, p_target: see `floors.energy_budget`.
      variance_weight, variance_floor, variance_eps: see `floors.variance_floor`.
      variance_on: "q" or "qp", the coordinates that the variance floor holds up.
      logdet_weight, logdet_floor_*, pr_floor_*, eigmax_ceiling_*, logdet_eps: see `floors.logdet_floor`.
      projection_dim: columns of the projections R, at most d and one less than the states.
      refresh_interval: steps for which one pair of projections serves.
      mean_weight: see `floors.mean_penalty`.
      horizon: epoch (from 1) -> steps of the flow that are taken, the curriculum of section 4.3; None takes all.
    """
    k = min(projection_dim, half_dim, max(num_states - 1, 1))
    spectral = {
        "q": dict(floor=logdet_floor_q, pr_floor=pr_floor_q, eigmax_ceiling=eigmax_ceiling_q, eps=logdet_eps),
        "p": dict(floor=logdet_floor_p, pr_floor=pr_floor_p, eigmax_ceiling=eigmax_ceiling_p, eps=logdet_eps),
    }

    def draw(count: Array | int) -> dict[str, Array]:
        names = ("q", "p")
        return {x: orthonormal_projection(rng.stream(seed, f"logdet_{x}", count), half_dim, k) for x in names}

    def loss(params: Any, z: Array, projections: dict[str, Array], epoch: Array) -> tuple[Array, dict[str, Array]]:
        scale = residual_scale(epoch)
        steps = None if horizon is None else horizon(epoch)

        pairs = [(i, j) for i, j in itertools.combinations(range(z.shape[0]), 2) if i < num_global]
        earlier, later = (jnp.stack([z[i] for i in views]) for views in zip(*pairs, strict=True))
        prediction = consistency(  # of all pairs as one batch: its means are the mean over the pairs
            lambda z, direction: flow(params, z, direction, scale, steps),
            earlier,
            later,
            match=match,
            p_weight=p_weight,
            both_directions=both_directions,
            detach_target=detach_target,
            energy_weight=energy_weight,
            energy=energy and (lambda z: energy(params, z, scale)),
        )

        states = as_one_batch(z)
        halves = dict(zip(("q", "p"), jnp.split(states, 2, axis=-1), strict=True))
        held_up = states if variance_on == "qp" else halves["q"]
        logdets = {x: floors.logdet_floor(halves[x], projections[x], **spectral[x]) for x in halves}
        terms = {
            "pred": prediction,
            "budget": floors.energy_budget(states, q_target=q_target, p_target=p_target),
            "var": floors.variance_floor(held_up, floor=variance_floor, eps=variance_eps),
            "logdet": logdets["q"][0] + logdets["p"][0],
            "mean": floors.mean_penalty(states),
        }
        total = (
            terms["pred"]
            + budget_weight * terms["budget"]
            + variance_weight * terms["var"]
            + logdet_weight * terms["logdet"]
            + mean_weight * terms["mean"]
        )
        metrics = {"total": total, **terms, "residual_scale": scale}
        if steps is not None:
            metrics["horizon"] = steps
        for x in halves:
            metrics |= scale_diagnostics(halves[x], x)
            stats = logdets[x][1]
            metrics |= {
                f"{x}_logdet": stats["logdet_per_dim"],
                f"{x}_pr": stats["pr_norm"],
                f"{x}_eigmax": stats["eigmax_frac"],
            }
        if potential is not None:
            metrics["potential_variance"] = potential(jax.lax.stop_gradient(params), z[0, :, :half_dim]).var()
        return total, metrics

    return Objective(draw, refresh_interval, loss)
