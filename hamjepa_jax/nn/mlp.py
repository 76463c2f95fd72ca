"""Float32 multilayer perceptrons: potentials, the MLP predictor's update, projectors, objectives' own networks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hamjepa_jax.nn.layers import Linear, batch_norm

Array = jax.Array


class MLP(nn.Module):
    """`depth` hidden layers with exact (erf) GELU and a linear output: [..., n] -> [..., features]."""

    hidden: int
    depth: int
    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(self.depth):
            x = nn.gelu(Linear(self.hidden, name=f"hidden{i}")(x), approximate=False)
        return Linear(self.features, name="output")(x)


class Projector(nn.Module):
    """Linear layers with a normalisation and a ReLU between them, the last one plain: [b, n] -> [b, features].

    Attributes:
      features: size of the output.
      hidden: size of the layers before; that of the output if None.
      layers: linear layers, 1 or more.
      norm: "batch" (the batch's statistics in training), "layer" or "none".
    """

    features: int
    hidden: int | None = None
    layers: int = 2
    norm: str = "batch"

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        for i in range(self.layers - 1):
            number = str(i) if i else ""  # The first layer's names are those of earlier checkpoints.
            x = Linear(self.hidden or self.features, name=f"hidden{number}")(x)
            if self.norm == "batch":
                x = batch_norm(train, x.dtype, f"bn{number}")(x)
            elif self.norm == "layer":
                x = nn.LayerNorm(name=f"ln{number}")(x)
            x = nn.relu(x)
        return Linear(self.features, name="output")(x)


class Network(NamedTuple):
    """A network as pure functions, for an objective that has one of its own.

    Attributes:
      init: (key, size of an input) -> (params, running batch statistics).
      apply: (params, statistics, x [b, n]) -> ([b, features], new statistics), in training.
    """

    init: Callable[[Array, int], tuple[Any, Any]]
    apply: Callable[[Any, Any, Array], tuple[Array, Any]]


def network(*, features: int, hidden: int, layers: int, norm: str, name: str) -> Network:
    """A network of the form of a `Projector`; `name` is for messages."""
    module = Projector(features, hidden, layers, norm, name=name)

    def init(key: Array, size: int) -> tuple[Any, Any]:
        variables = module.init(key, jnp.zeros((1, size)), train=False)
        return variables["params"], variables.get("batch_stats", {})

    def apply(params: Any, stats: Any, x: Array) -> tuple[Array, Any]:
        out, updated = module.apply(
            {"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"]
        )
        return out, updated.get("batch_stats", {})

    return Network(init, apply)
