"""Messages on the terminal: the package's are shown, and Orbax's own are told by the package."""

import logging
import os
import subprocess
import sys
import types

import pytest

from hamjepa_jax.cli.terminal import is_late_answer, is_not_orbax


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


def test_late_answers_of_a_save_that_failed_are_not_shown():
    assert is_late_answer(types.SimpleNamespace(exc_value=RuntimeError("Event loop is closed")))
    assert not is_late_answer(types.SimpleNamespace(exc_value=RuntimeError("another")))


PRINTS = """
import logging, sys
from hamjepa_jax.cli import terminal
from hamjepa_jax.cli.parser import Parser, run_command

def command(arguments):
    print("printed 2 × 3")
    logging.getLogger("hamjepa_jax").info("step 1 · another image takes the place of caf\\udce9.png")

terminal.log_to_terminal()
sys.exit(run_command(command, Parser(prog="x"), []))
"""


@pytest.mark.parametrize("locale", [{"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, {"LC_ALL": "C.UTF-8"}])
def test_every_line_is_shown_in_every_encoding(tmp_path, locale):
    """Under POSIX without UTF-8 mode, standard output takes ASCII only; a file's name may be no text anywhere."""
    environ = {**os.environ, "PYTHONCOERCECLOCALE": "0", **locale}
    environ.pop("PYTHONIOENCODING", None)
    (tmp_path / "prints.py").write_text(PRINTS, encoding="utf-8")
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, tmp_path / "prints.py"], env=environ, capture_output=True)
    shown = done.stdout.decode().encode("ascii", "backslashreplace").decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert shown.splitlines() == [
        r"printed 2 \xd7 3", r"step 1 \xb7 another image takes the place of caf\udce9.png"
    ]  # fmt: skip
