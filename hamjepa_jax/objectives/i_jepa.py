"""Prediction of the tokens of hidden blocks from visible ones (in the manner of I-JEPA: Assran et al., 2023)."""

from typing import Any

import jax
import jax.numpy as jnp

from hamjepa_jax import parts, rng
from hamjepa_jax.objectives.objective import (
    Context,
    Objective,
    Seen,
    Teacher,
    Wide,
    as_one_batch,
    refuse,
    scale_diagnostics,
)
from hamjepa_jax.objectives.projections import unit_directions
from hamjepa_jax.objectives.sigreg import sigreg
from hamjepa_jax.objectives.teachers import teacher, teacher_settings
from hamjepa_jax.parts import Values, field, settings

Array = jax.Array
GROUP = "i_jepa"
QUADRATURE = dict(num_points=9, t_max=5.0, weight="gaussian")  # of SIGReg, as in LeJEPA's paper

SETTINGS = teacher_settings(0.996, "0.996 is I-JEPA's, its course is linear") | settings(
    targets=field(
        "teacher",
        'Encoder of the whole images: "teacher", or "encoder", the trained one itself without a gradient, for '
        "which sigreg_weight must be above 0.",
        choices=("teacher", "encoder"),
    ),
    num_blocks=field(4, "Hidden blocks of a view; 4 is I-JEPA's.", least=1, most=64),
    block_share=field(
        0.175,
        "Share of the tokens in a hidden block, a square; I-JEPA's lie between 0.15 and 0.2, of various forms.",
        above=0,
        below=1,
    ),
    predictor_dim=field(384, "Channels inside the prediction network; 384 is I-JEPA's.", least=1, most=2**14),
    predictor_depth=field(6, "Its blocks; I-JEPA's code has 12 for a ViT-H.", least=1, most=1024),
    predictor_heads=field(6, "Its heads (ours).", least=1, most=1024),
    sigreg_weight=field(0.0, "Weight of SIGReg of the visible tokens' mean (ours).", least=0),
    num_directions=field(64, "Random directions of SIGReg.", least=1, most=2**16),
)


@parts.objectives.register(
    "i_jepa",
    SETTINGS,
    title="I-JEPA",
    shown=("pred", "sigreg", "z_mean_square", "z_min_std"),
    uses_predictor=False,
    reads_qp=False,
)
def i_jepa(context: Context, s: Values) -> Objective:
    """Mean squared error of the tokens predicted for each hidden block (I-JEPA, section 3; over channels too).

    The encoder sees tokens that lie in no block; a network of the objective's own predicts each block from them;
    the targets are the tokens of the whole view, each normalised to mean 0 and variance 1. Published code takes a
    smoothed absolute error, hides oblong blocks and shows the rest of a large block. Ours: square blocks of
    one size, the same in all views and images of a step, so that every shape is fixed; as many visible tokens as
    disjoint blocks would leave, chosen at random.

    Raises:
      UserError: for an encoder that gives no tokens or cannot leave some out, for local views, for no tokens.
    """
    _check(context, s)
    grid = context.grid
    places, side = grid.h * grid.w, block_side(grid.h, grid.w, s.block_share)
    visible = places - s.num_blocks * side**2
    network = context.token_network(
        dim=s.predictor_dim, depth=s.predictor_depth, heads=s.predictor_heads, name=GROUP
    )

    def draw(count: Array | int) -> dict[str, Array]:
        key = rng.stream(context.seed, "masks", count)
        keep, hidden = draw_masks(key, grid.h, grid.w, blocks=s.num_blocks, side=side, visible=visible)
        directions = unit_directions(
            rng.stream(context.seed, "sigreg", count), grid.channels, s.num_directions if s.sigreg_weight else 1
        )
        return {"keep": keep, "hidden": hidden, "directions": directions}

    def loss(params: Any, seen: Seen, draw: Any, epoch: Array) -> tuple[Array, dict[str, Array], Any]:
        del epoch
        v, b, _ = seen.z.shape
        tokens = as_one_batch(seen.z).reshape(b * v, visible, grid.channels)
        whole = as_one_batch(seen.teacher.h).reshape(b * v, places, grid.channels)
        targets = jax.lax.stop_gradient(standardised(whole))
        errors = [
            jnp.square(network.apply(params, tokens, draw["keep"], block) - targets[:, block]).mean()
            for block in draw["hidden"]
        ]
        prediction = sum(errors) / len(errors)
        means = tokens.mean(axis=1)
        isotropy = sigreg(means.reshape(b, v, -1).swapaxes(0, 1), draw["directions"], **QUADRATURE)
        total = prediction + s.sigreg_weight * isotropy if s.sigreg_weight else prediction
        metrics = {"total": total, "pred": prediction, "sigreg": isotropy}
        return total, metrics | scale_diagnostics(means, "z"), ()

    asked = teacher(s) if s.targets == "teacher" else Teacher(lambda share: jnp.zeros_like(share))
    return Objective(
        draw,
        1,
        loss,
        reads=GROUP,
        init=lambda key: network.init(key, grid.channels),
        wide=Wide(asked, keep=lambda draw: draw["keep"]),
    )


def _check(context: Context, s: Values) -> None:
    if context.token_network is None:
        refuse(
            "objective.name",
            GROUP,
            "needs tokens of which some can be left out; set encoder.trunk='vit_tiny' or another vit, "
            "encoder.mode='token', token_hw=None, split_qp=False and projector='identity'",
        )
    if context.num_local:
        refuse("views.num_local", context.num_local, "the hidden blocks are those of the global views; set it to 0")
    grid = context.grid
    hidden = s.num_blocks * block_side(grid.h, grid.w, s.block_share) ** 2
    if hidden >= grid.h * grid.w:
        refuse(
            "objective.i_jepa.block_share",
            s.block_share,
            f"{s.num_blocks} blocks can hide all {grid.h * grid.w} tokens; lower it, or num_blocks",
        )
    if s.targets == "encoder" and not s.sigreg_weight:
        refuse("objective.i_jepa.sigreg_weight", s.sigreg_weight, "must be above 0 with targets='encoder'; set it")
    if s.predictor_dim % s.predictor_heads:
        refuse(
            "objective.i_jepa.predictor_heads",
            s.predictor_heads,
            f"does not divide predictor_dim {s.predictor_dim}; use a divisor",
        )


def block_side(rows: int, columns: int, share: float) -> int:
    """Side, in tokens, of a square block of about that share of the grid."""
    return max(1, min(rows, columns, round((share * rows * columns) ** 0.5)))


def draw_masks(key: Array, rows: int, columns: int, *, blocks: int, side: int, visible: int) -> tuple[Array, Array]:
    """Places of visible tokens, ascending, and of those in square blocks at random: [visible] and [blocks, side²].

    Blocks may overlap; no visible token lies in one. `visible` is at most rows·columns − blocks·side².
    """
    down, across, order = jax.random.split(key, 3)
    top = jax.random.randint(down, (blocks, 1, 1), 0, rows - side + 1)
    left = jax.random.randint(across, (blocks, 1, 1), 0, columns - side + 1)
    inside = jnp.arange(side)
    hidden = ((top + inside[None, :, None]) * columns + left + inside[None, None, :]).reshape(blocks, side * side)
    taken = jnp.zeros(rows * columns).at[hidden.reshape(-1)].set(2.0)
    ranks = jnp.argsort(taken + jax.random.uniform(order, (rows * columns,)))
    return jnp.sort(ranks[:visible]), hidden


def standardised(tokens: Array) -> Array:
    """Tokens [..., c] with mean 0 and variance 1 over their channels."""
    centred = tokens - tokens.mean(axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-5)
