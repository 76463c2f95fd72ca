"""What the loss of another process looks like, and what is this process's own fault."""

import jax
import pytest

from hamjepa_jax.training import processes

GLOO = "Gloo all-reduce failed: Connection closed by peer"


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        (f"UNKNOWN: {GLOO}", True),
        (f"FAILED_PRECONDITION: Buffer Definition Event: {GLOO}", True),
        ("INTERNAL: NCCL operation failed: remote process exited", True),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12 bytes.", False),
        ("INVALID_ARGUMENT: Executable expected 3 arguments", False),
        ("UNIMPLEMENTED: no such collective here", False),
    ],
)
def test_an_error_of_this_process_s_own_is_no_loss(message, lost, monkeypatch):
    error = jax.errors.JaxRuntimeError(message)
    assert not processes.is_lost(error)  # There is no other process.
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert processes.is_lost(error) == lost
    assert processes.is_lost(ValueError(message)) == lost  # as it is raised where an array is read
    assert not processes.is_lost(ValueError(f"a mistake: {message}")) and not processes.is_lost(None)
