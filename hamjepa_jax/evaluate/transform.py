"""The geometry H that a run was regularised in, or another one, as a map of its states."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from hamjepa_jax import build, objectives
from hamjepa_jax import config as config_lib
from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives import hamsigreg
from hamjepa_jax.training.state import TrainState

Array = jax.Array
ConfigDict = ml_collections.ConfigDict


def geometry(config: ConfigDict, text: str, state: TrainState, epoch: int) -> Callable[[Array], Array]:
    """The map z -> H^{1/2}z of states [n, K].

    Args:
      config: of the run; its token grid is that of H.
      text: "trained", the H that the run was regularised in (objective.name='hamsigreg'); "identity", "diag" or
        "chain", or "chain:name=value,…" with names of objective.hamsigreg.chain.
      state: of the checkpoint, which holds a learned H.
      epoch: counted from 1, for the schedules of a learned H.

    Raises:
      UserError: if there is no such H.
    """
    kind, _, options = text.partition(":")
    if kind == "trained":
        if config.objective.name != "hamsigreg":
            name = config.objective.name
            raise UserError(f"--metric trained: objective.name={name!r} has no H; give one, as in --metric=diag.")
        return jax.jit(_trained_geometry(config, state, epoch))
    if kind not in ("identity", "diag", "chain") or (options and kind != "chain"):
        raise UserError(
            f'--metric {text}: expected "trained", "identity", "diag", "chain" or "chain:name=value,…".'
        )
    config = config.copy_and_resolve_references()
    config.objective.hamsigreg.kind = kind
    given = config_lib.parse_arg(options, **config.objective.hamsigreg.chain)
    config.objective.hamsigreg.chain.update(vars(given))
    try:
        transform = build.fixed_geometry(config)
        jax.eval_shape(transform, jnp.zeros((1, config_lib.embed_dim(config))))
    except ValueError as error:
        raise UserError(f"--metric {text}: {error}") from None
    return jax.jit(transform)


def _trained_geometry(config: ConfigDict, state: TrainState, epoch: int) -> Callable[[Array], Array]:
    c = config.objective.hamsigreg
    if c.kind != "learnable":
        return build.fixed_geometry(config)
    learned, d_f = c.learnable, build.grid_channels(config)
    lambda_2d = hamsigreg.spectrum(
        state.params[objectives.SPECTRUM],
        bins=learned.bins,
        span_max=learned.span_max,
        eps_ridge=learned.eps_ridge,
        alpha=hamsigreg.schedule(epoch, learned.alpha_start, learned.alpha_ramp),
        beta=hamsigreg.schedule(epoch, learned.beta_start, learned.beta_ramp),
        **learned.shape,
        **build.token_grid(config),
    )

    def transform(z: Array) -> Array:
        grids = z.reshape(z.shape[0], -1, lambda_2d.size * d_f)  # q and p are a grid each
        return hamsigreg.apply_grid_spectrum(grids, lambda_2d, d_f=d_f).reshape(z.shape)

    return transform
