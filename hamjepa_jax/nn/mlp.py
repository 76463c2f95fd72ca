"""Float32 multilayer perceptrons: potentials, the MLP predictor's update, the baseline's projector."""

import flax.linen as nn
import jax

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
    """Linear – batch normalisation – ReLU – linear: [b, n] -> [b, features], `features` wide throughout."""

    features: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = Linear(self.features, name="hidden")(x)
        x = nn.relu(batch_norm(train, x.dtype, "bn")(x))
        return Linear(self.features, name="output")(x)
