"""Ctrl-C ends a command in one sentence, also while it still imports."""

import os
import signal
import subprocess
import sys

import pytest

# Argparse is the first module that main imports after the handler is set; jax is imported seconds later.
DURING = """
import builtins, os, runpy, signal, sys
real = builtins.__import__

def importing(name, *rest, **more):
    if name == {module!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest, **more)

sys.modules.pop("argparse", None)
builtins.__import__ = importing
sys.argv = ["main", "--config=configs/quickstart.py", "--workdir=" + {workdir!r}]
runpy.run_module("hamjepa_jax.main", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["argparse", "jax"])
def test_ctrl_c_during_imports_is_one_sentence(module, tmp_path):
    program = DURING.format(module=module, workdir=str(tmp_path / "run"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stderr) == (
        130,
        "error: stopped by Ctrl-C; the work since the last save is lost.\n",
    )
