"""The map z -> H^{1/2}z of the geometry H that a run was regularised in, or of another one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import ml_collections

from hamjepa_jax import build, parts
from hamjepa_jax import config as config_lib
from hamjepa_jax.config.default import values_of
from hamjepa_jax.errors import UserError
from hamjepa_jax.objectives import SPECTRUM, ham_geometry
from hamjepa_jax.training.state import TrainState

Array = jax.Array
ConfigDict = ml_collections.ConfigDict


def geometry_map(config: ConfigDict, text: str, state: TrainState, epoch: int) -> Callable[[Array], Array]:
    """The map of states [n, K].

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
    grid = build.state_grid(config) if config.encoder.mode == "token" else None
    _, values = values_of(config, parts.objectives, "hamsigreg")
    if kind == "trained":
        if config.objective.name != "hamsigreg":
            name = config.objective.name
            raise UserError(f"--metric trained: objective.name={name!r} has no H; give one, as in --metric=diag.")
        raw = state.params[SPECTRUM] if values.kind == "learnable" else None
        return jax.jit(ham_geometry(values, grid, raw, epoch))
    if kind not in ("identity", "diag", "chain") or (options and kind != "chain"):
        raise UserError(
            f'--metric {text}: expected "trained", "identity", "diag", "chain" or "chain:name=value,…".'
        )
    values.kind = kind
    vars(values.chain).update(vars(config_lib.parse_arg(options, **vars(values.chain))))
    try:
        transform = ham_geometry(values, grid)
        jax.eval_shape(transform, jnp.zeros((1, build.embed_dim(config))))
    except (UserError, ValueError) as error:
        raise UserError(f"--metric {text}: {error}") from None
    return jax.jit(transform)
