"""A config's training step, compiled and with a batch at hand."""

import contextlib
import math
from typing import Any, NamedTuple

import ml_collections

from hamjepa_jax.run.setup import SeededStep, Setup, compiled, lower_step, seeded, set_up


class Prepared(NamedTuple):
    """Attributes:
    setup: of the config, with one step a dispatch.
    store, batch: of the first step.
    step: (state, store, batch) -> (state, metrics).
    flops: of one step on all devices, by XLA's count of a TPU's program before compilation. Of CPUs' it counts a
      loop once, and what a GPU's compiler hands to a library, such as convolutions, not at all.
    """

    setup: Setup
    store: Any
    batch: Any
    step: SeededStep
    flops: float


def prepare(config: ml_collections.ConfigDict) -> Prepared:
    """Opens the config's own data and compiles its step."""
    config = config.copy_and_resolve_references()
    config.train.steps_per_dispatch = 1
    setup = set_up(config)
    opened = setup.inputs.open()
    with contextlib.closing(opened.batches(0)) as batches:
        batch = next(batches)
    flops = lower_step(setup, opened.store, batch, platform="tpu").cost_analysis().get("flops", math.nan)
    step = seeded(setup, compiled(lower_step(setup, opened.store, batch)))
    return Prepared(setup, opened.store, batch, step, flops)
