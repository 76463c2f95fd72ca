"""Prediction losses between views: through a flow of phase space, or to the mean view."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
MATCHES = ("q", "qp")
BOTH_DIRECTIONS = ("none", "reverse_time", "forward")


def consistency(
    flow: Callable[[Array, int], Array],
    z_a: Array,
    z_b: Array,
    *,
    match: str,
    p_weight: float,
    both_directions: str,
    detach_target: bool,
    energy_weight: float,
    energy: Callable[[Array], Array] | None,
) -> Array:
    """Mean squared error between the flow of one view's state and the other view's state (paper, section 4).

    Args:
      flow: flow(z, direction) -> z, direction ±1.
      z_a: states [..., 2d] that are integrated forward to predict z_b.
      z_b: states, the same shape.
      match: "q" compares positions, and momenta with weight `p_weight`; "qp" compares the whole state.
      p_weight: weight of the momenta's error when match is "q".
      both_directions: "none" predicts b from a only; "reverse_time" also a from b with direction −1; "forward"
        also a from b with direction +1. Two directions are averaged.
      detach_target: whether no gradient flows into the predicted view.
      energy_weight: weight of MSE(H(flow(z)), stop-gradient H(z)), a penalty on energy drift.
      energy: energy(z) -> [...]; needed when energy_weight is not 0.

    Returns:
      The loss, a scalar.

    Raises:
      ValueError: for an unknown option, states of different shapes, a flow that changes it, or a missing energy.
    """
    if z_a.shape != z_b.shape or z_a.shape[-1] % 2:
        raise ValueError(f"the views' states must have one even-sized shape, got {z_a.shape} and {z_b.shape}.")
    if match not in MATCHES:
        raise ValueError(f"match must be one of {', '.join(MATCHES)}, got {match!r}.")
    if both_directions not in BOTH_DIRECTIONS:
        raise ValueError(f"both_directions must be one of {', '.join(BOTH_DIRECTIONS)}, got {both_directions!r}.")
    if energy_weight and energy is None:
        raise ValueError(f"energy_weight is {energy_weight}, but no energy was given.")

    def one_direction(source, target, direction):
        predicted = flow(source, direction)
        if predicted.shape != target.shape:
            raise ValueError(f"the flow must keep the states' shape {target.shape}, it gave {predicted.shape}.")
        target = jax.lax.stop_gradient(target) if detach_target else target
        squares = jnp.square(predicted - target)
        if match == "qp":
            loss = squares.mean()
        else:
            q_squares, p_squares = jnp.split(squares, 2, axis=-1)
            loss = q_squares.mean() + p_weight * p_squares.mean()
        if energy_weight:
            drift = energy(predicted) - jax.lax.stop_gradient(energy(source))
            loss = loss + energy_weight * jnp.square(drift).mean()
        return loss

    loss = one_direction(z_a, z_b, 1)
    if both_directions == "none":
        return loss
    return 0.5 * (loss + one_direction(z_b, z_a, -1 if both_directions == "reverse_time" else 1))


def lejepa_prediction(z_views: Array, num_global: int) -> Array:
    """½·mean of (c − z)² over views, batch and coordinates, c the mean of the global views (LeJEPA, 2511.08544).

    Args:
      z_views: [v, b, k], global views first.
      num_global: how many of the v views are global.

    Returns:
      The loss, a scalar; gradients reach every view.

    Raises:
      ValueError: if there are fewer views than global ones.
    """
    if z_views.ndim != 3 or not 1 <= num_global <= z_views.shape[0]:
        raise ValueError(f"expected [v, b, k] with {num_global} global views first, got shape {z_views.shape}.")
    center = z_views[:num_global].mean(axis=0, keepdims=True)
    return 0.5 * jnp.square(center - z_views).mean()
