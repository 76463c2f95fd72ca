"""A config's training step, compiled and with a batch at hand."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections

from hamjepa_jax.run.setup import Setup, compile_step, set_up


class Prepared(NamedTuple):
    """Attributes:
    setup: of the config, with one step a dispatch.
    store, batch: of the first step.
    step: the compiled step, (state, store, batch) -> (state, metrics).
    """

    setup: Setup
    store: Any
    batch: Any
    step: Callable


def prepare(config: ml_collections.ConfigDict) -> Prepared:
    """Opens the config's own data and compiles its step."""
    config = config.copy_and_resolve_references()
    config.train.steps_per_dispatch = 1
    setup = set_up(config)
    opened = setup.inputs.open()
    with contextlib.closing(opened.batches(0)) as batches:
        batch = next(batches)
    return Prepared(setup, opened.store, batch, compile_step(setup, opened.store, batch))
