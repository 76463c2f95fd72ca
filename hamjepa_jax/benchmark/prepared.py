"""A config's training step, compiled and with a batch at hand."""

import contextlib
from typing import Any, NamedTuple

import jax
import ml_collections

from hamjepa_jax.run.setup import SeededStep, Setup, compiled, seeded, set_up, trace_step


class Prepared(NamedTuple):
    """Attributes:
    setup: of the config, with one step a dispatch.
    store, batch: of the first step.
    step: (state, store, batch) -> (state, metrics).
    traced: the step for any devices.
    """

    setup: Setup
    store: Any
    batch: Any
    step: SeededStep
    traced: jax.stages.Traced


def prepare(config: ml_collections.ConfigDict) -> Prepared:
    """Opens the config's own data and compiles its step."""
    config = config.copy_and_resolve_references()
    config.train.steps_per_dispatch = 1
    setup = set_up(config)
    opened = setup.inputs.open()
    with contextlib.closing(opened.batches(0)) as batches:
        batch = next(batches)
    traced = trace_step(setup, opened.store, batch)
    return Prepared(setup, opened.store, batch, seeded(setup, compiled(traced.lower())), traced)
