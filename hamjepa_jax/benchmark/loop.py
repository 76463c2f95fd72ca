"""Times the loop around the training step: everything that the host does for a step but the step itself."""

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from hamjepa_jax import train
from hamjepa_jax.run import hooks
from hamjepa_jax.run.preemption import StopRequest
from hamjepa_jax.run.seeds import Alone
from hamjepa_jax.run.setup import Setup, set_up
from hamjepa_jax.training.mesh import replicated, state_sharding
from hamjepa_jax.training.state import TrainState

STEPS = 2000
WARM = 100  # First steps that are not counted: the batches that were made beforehand are used up.


class LoopTimes(NamedTuple):
    """Seconds of the loop for each step, and of these in the call of the program.

    Attributes:
      step: [n], from the call of one program to that of the next.
      call: [n], in the call, which hands the arrays of the state to the device.
      arrays: in the state, the batch and the metrics.
    """

    step: np.ndarray
    call: np.ndarray
    arrays: int


class Hollow(Alone):
    """A run whose program computes nothing: it takes and gives arrays as the training step does."""

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.called: list[tuple[float, float]] = []
        self.arrays = 0

    def compile(self, state: TrainState, store: Any, batch: Any, *, donate: bool) -> Callable:
        """The empty step; it notes when it was called and when it returned."""
        setup = self._setup
        _, metrics = jax.eval_shape(setup.training.step, setup.abstract, store, batch)
        self.arrays = len(jax.tree.leaves((setup.abstract, batch, metrics)))

        def empty(state: TrainState, store: Any, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
            numbers = {name: jnp.full(m.shape, 0.5, m.dtype) for name, m in metrics.items()}
            return state.replace(step=state.step + 1), numbers

        shardings = state_sharding(setup.mesh, setup.abstract), replicated(setup.mesh)
        step = jax.jit(empty, donate_argnums=(0,) if donate else (), out_shardings=shardings, keep_unused=True)
        program = step.lower(setup.abstract, store, batch).compile()

        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            outputs = program(*arguments)
            self.called.append((start, time.perf_counter()))
            return outputs

        return call


def benchmark_loop(config: ml_collections.ConfigDict, steps: int = STEPS) -> LoopTimes:
    """Runs the loop of a config for so many steps with an empty program, without evaluations.

    Batches, checks, logs and hooks are those of a training run; the host never waits for the device.
    """
    config = config.copy_and_resolve_references()
    config.train.steps, config.train.steps_per_dispatch = steps + WARM, 1
    config.optimizer.warmup, config.evaluate.every = "1 steps", ""
    config.checkpoint.every = f"{steps + WARM} steps"
    with tempfile.TemporaryDirectory() as folder, StopRequest() as stop, contextlib.ExitStack() as resources:
        setup = set_up(config)
        members = Hollow(setup)
        shown = hooks.shown_terms(setup.config, None)
        workdir = pathlib.Path(folder) / "run"
        train.train_members(setup, members, [setup.config], [workdir], stop, resources, [()], shown)
    start, end = np.array(members.called[WARM:]).T
    return LoopTimes(step=np.diff(start), call=(end - start)[:-1], arrays=members.arrays)


def describe(report: LoopTimes) -> str:
    """The report as text."""
    step, call = report.step * 1e6, report.call * 1e6
    return (
        f"the loop takes {np.median(step):.0f} µs a step (mean {step.mean():.0f}, 99 of 100 below "
        f"{np.percentile(step, 99):.0f}; {step.size} steps)\n"
        f"of these {np.median(call):.0f} µs in the call of the program, with {report.arrays} arrays; "
        f"{jax.device_count()} × {jax.devices()[0].device_kind}, jax {jax.__version__}"
    )
