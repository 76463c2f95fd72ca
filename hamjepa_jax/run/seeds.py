"""One run, or several seeds of it at once by vmap: the differences that the loop meets."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from hamjepa_jax.data import index_batches, is_encoded
from hamjepa_jax.errors import UserError
from hamjepa_jax.run.inputs import Opened
from hamjepa_jax.run.setup import Setup, compile_step, compiled
from hamjepa_jax.training.mesh import batch_sharded, replicated
from hamjepa_jax.training.state import TrainState

Array = jax.Array
ConfigDict = ml_collections.ConfigDict
Step = Callable[[TrainState, Any, Any], tuple[TrainState, dict[str, Array]]]

# All runs stand at one step. If each had its own, every branch that depends on it, such as the refresh of the
# random projections, would be computed at every step.
_AXES = TrainState(step=None, params=0, batch_stats=0, opt_state=0, draw=0, teacher=0, carried=0, probe=0)


class Alone:
    """One run."""

    def __init__(self, setup: Setup):
        self._setup = setup

    def joined(self, states: Sequence[TrainState]) -> TrainState:
        """The state for the step, from the states of all runs."""
        (state,) = states
        return state

    def state(self, state: TrainState, i: int) -> TrainState:
        """The state of run i."""
        return state

    def metrics(self, metrics: Mapping[str, np.ndarray], i: int) -> Mapping[str, np.ndarray]:
        """The metrics of run i, from those of the step."""
        return metrics

    def batches(self, opened: Opened, first_step: int) -> Iterator[Any]:
        """The batches of the steps after `first_step`; close the iterator."""
        return opened.batches(first_step)

    def compile(self, state: TrainState, store: Any, batch: Any, *, donate: bool) -> Step:
        """The step, (state, store, batch) -> (state, metrics)."""
        return compile_step(self._setup, store, batch, donate=donate)


class Together:
    """Runs that differ in their seed alone, as one program: the device holds the state and activations of all."""

    def __init__(self, setup: Setup, configs: Sequence[ConfigDict]):
        """Nothing is computed yet.

        Args:
          setup: of the first config.
          configs: of all runs, alike but for the seed.

        Raises:
          UserError: for settings that several seeds at once cannot have.
        """
        config = setup.config
        on_device = config.data.store == "device" and not is_encoded(setup.source.train)
        if not on_device or config.train.steps_per_dispatch > 1 or config.mesh.fsdp > 1 or jax.process_count() > 1:
            raise UserError(
                "--parallel_seeds: needs data.store='device', images in an array, train.steps_per_dispatch=1, "
                "mesh.fsdp=1 and a single process."
            )
        self._setup, self._configs = setup, configs
        whole = replicated(setup.mesh)
        self._stack = jax.jit(lambda *states: stack(*states), out_shardings=whole)
        self._unstack = jax.jit(unstack, out_shardings=whole)

    def joined(self, states: Sequence[TrainState]) -> TrainState:
        return self._stack(*states)

    def state(self, state: TrainState, i: int) -> TrainState:
        return self._unstack(state, i)

    def metrics(self, metrics: Mapping[str, np.ndarray], i: int) -> Mapping[str, np.ndarray]:
        return {name: value[i] for name, value in metrics.items()}

    def batches(self, opened: Opened, first_step: int) -> Iterator[Any]:
        """Example indices [seeds, b] of every step: each run's own order."""
        n, size = len(self._setup.source.train), self._setup.config.train.batch_size
        sharding = batch_sharded(self._setup.mesh, axis=1)
        orders = (index_batches(c.seed, first_step, n=n, batch_size=size) for c in self._configs)
        for rows in zip(*orders, strict=True):
            index = np.stack(rows)
            yield jax.make_array_from_callback(index.shape, sharding, lambda part, index=index: index[part])

    def compile(self, state: TrainState, store: Any, batch: Any, *, donate: bool) -> Step:
        seeds = jnp.asarray([config.seed for config in self._configs], jnp.int32)
        step = jax.jit(
            make_step(self._setup),
            donate_argnums=1 if donate else (),
            out_shardings=replicated(self._setup.mesh),
        )
        return functools.partial(compiled(step.lower(seeds, state, store, batch)), seeds)


def make_step(setup: Setup) -> Callable[[Array, TrainState, Any, Array], tuple[TrainState, dict[str, Array]]]:
    """The training step of all runs, (seeds [n], `stack`ed state, store, index [n, b]) -> (state, metrics [n])."""

    def step_of(seed, state, store, index):
        return setup.training_of(seed).step(state, store, index)

    return jax.vmap(step_of, in_axes=(0, _AXES, None, 0), out_axes=(_AXES, 0))


def stack(*states: TrainState) -> TrainState:
    """The states of all runs as one, along a new first axis of everything but the step."""
    return jax.tree.map(lambda *x: jnp.stack(x), *states).replace(step=states[0].step)


def unstack(state: TrainState, i: Array | int) -> TrainState:
    """The state of run i."""
    return jax.tree.map(lambda x: x[i], state.replace(step=None)).replace(step=state.step)
