"""The online probe of a run: a program of its own after each step, which is the same with and without it.

It reads what is evaluated: frozen features of the batch's images without augmentation (of a stream, their first
crops), by the weights that the step has left.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import optax

from hamjepa_jax import build, rng
from hamjepa_jax.run.setup import Setup
from hamjepa_jax.training.mesh import parameters_sharded, replicated
from hamjepa_jax.training.online_probe import OnlineProbe
from hamjepa_jax.training.state import TrainState

Array = jax.Array
Step = Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]


def online_probe_of(setup: Setup, *, together: bool) -> "Beside | None":
    """The online probe that a run asks for; None if it asks for none."""
    return Beside(setup, together=together) if setup.config.evaluate.online_probe.enabled else None


class Beside:
    """Trains the probe of evaluate.online_probe beside a run's step."""

    def __init__(self, setup: Setup, *, together: bool):
        """Nothing is computed yet.

        Args:
          setup: of the run; its images have labels.
          together: whether several seeds are trained at once.
        """
        c = setup.config.evaluate.online_probe
        optimizer = optax.adamw(c.learning_rate, weight_decay=c.weight_decay)
        probe = OnlineProbe(len(setup.source.train.class_names), setup.config.encoder.split_qp, optimizer)
        self._setup, self._log = setup, c.log
        make = functools.partial(probe.init, dim=build.embed_dim(setup.config))
        shapes = jax.eval_shape(make, rng.stream(0, "online_probe"))
        split = parameters_sharded(setup.mesh, shapes)
        self.abstract = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, split
        )
        self._make = jax.jit(make, out_shardings=split)
        self._labels = setup.inputs.all_labels()
        update = self._updating(probe, setup.config.train.steps_per_dispatch)
        if together:
            update = jax.vmap(update, in_axes=(0, 0, None, 0, None))
        whole = replicated(setup.mesh)
        self._update = jax.jit(update, donate_argnums=0, out_shardings=(whole if together else split, whole))

    def first(self, config: ml_collections.ConfigDict) -> dict[str, Any]:
        """The probe that a run of the config, which may have another seed, begins with."""
        return self._make(rng.stream(config.seed, "online_probe"))

    def step(self, step: Step) -> Step:
        """The same step, and one of the probe after it."""

        def both(state: TrainState, store: Any, batch: Any) -> tuple[TrainState, dict[str, Array]]:
            probe = state.probe
            state, metrics = step(state.replace(probe=None), store, batch)
            variables = state.evaluated(teacher=self._setup.config.evaluate.teacher)
            probe, own = self._update(probe, variables, store, batch, self._labels)
            return state.replace(probe=probe), metrics | own if self._log else metrics

        return both

    def _updating(self, probe: OnlineProbe, k: int) -> Callable:
        """(probe, variables, store, batch, labels of all images) -> (probe, metrics) of a dispatch of k steps."""
        inputs, model, mesh = self._setup.inputs, self._setup.model, self._setup.mesh

        def update(held, variables, store, batch, labels):
            variables = jax.lax.with_sharding_constraint(variables, replicated(mesh))

            def one(held, batch):
                z = model.features(variables["params"], variables["batch_stats"], inputs.plain(store, batch))
                return probe.step(held, z, inputs.labels_of(labels, batch))

            return one(held, batch) if k == 1 else jax.lax.scan(one, held, batch)

        return update
