"""A split's inputs, opened: store, batches, note and views in one."""

import types

from hamjepa_jax.run.inputs import inputs_of


def open_inputs(config, split, mesh):
    inputs = inputs_of(config, split, mesh)
    return types.SimpleNamespace(views=inputs.views, reads=inputs.reads, **inputs.open()._asdict())
