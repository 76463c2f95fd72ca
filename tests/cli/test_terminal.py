"""Messages on the terminal: the package's are shown, and Orbax's own are told by the package."""

import logging
import sys

import pytest

from hamjepa_jax.cli.terminal import is_not_orbax


def record(level, path, error=None):
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("absl", level, path, 1, "message", (), info)


@pytest.mark.parametrize(
    "level, path, shown",
    [
        (logging.WARNING, "/site-packages/orbax/checkpoint/manager.py", False),
        (logging.ERROR, "/site-packages/orbax/checkpoint/manager.py", True),
        (logging.WARNING, "/home/orbax_user/jax/xla.py", True),
        (logging.WARNING, "/site-packages/jax/xla.py", True),
    ],
)
def test_orbax_s_warnings_are_not_shown(level, path, shown):
    assert is_not_orbax(record(level, path)) == shown


def test_errors_that_orbax_raises_too_are_not_shown(tmp_path):
    (tmp_path / "orbax").mkdir()
    (tmp_path / "orbax" / "own_failure.py").write_text("def fail():\n    raise ValueError\n")
    sys.path.insert(0, str(tmp_path / "orbax"))
    try:
        import own_failure

        own_failure.fail()
    except ValueError as error:
        assert not is_not_orbax(record(logging.ERROR, "/lib/asyncio/events.py", error))
        assert is_not_orbax(record(logging.ERROR, "/lib/asyncio/events.py", ValueError("other")))
    finally:
        sys.path.remove(str(tmp_path / "orbax"))
