"""What a person sees of a training run: a line that renews itself on a terminal, short lines in a log."""

import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from hamjepa_jax.data.pipeline.parallel import in_processes
from hamjepa_jax.run.progress import progress
from hamjepa_jax.training import monitor

PROGRAM = """
import logging
from hamjepa_jax.cli import terminal
from hamjepa_jax.run.progress import progress
terminal.log_to_terminal()
with progress(2, 10) as line:
    print("on a terminal:", line.on_terminal)
    line.show(1.5, 1234.5, 0.25)
    line.advance(3)
    logging.getLogger("hamjepa_jax.train").info("a line of the log")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_a_terminal_has_one_line_that_renews_itself_and_the_log_above_it():
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, stderr=theirs) as run:
        os.close(theirs)
        said = b""
        while True:
            try:
                said += os.read(ours, 65536)
            except OSError:  # It has ended.
                break
    os.close(ours)
    assert run.returncode == 0, said
    text = said.decode()
    assert "on a terminal: True" in text and "2/10 [" in text and "/ step" not in text
    assert "\ra line of the log\r\n" in text
    assert "5/10 [" in text and "epoch 1.50 · 1,234 images/s · loss 0.25" in text


def test_a_log_has_no_such_line(capsys):
    with progress(0, 10) as line:
        line.show(1.0, 10.0, 0.5)
        line.advance(5)
    assert not line.on_terminal and capsys.readouterr() == ("", "")


def test_decoding_leaves_no_bar_in_a_log(capsys):
    assert list(in_processes(len, ["abc"], workers=1, title="decoding", images_in=len)) == [3]
    assert capsys.readouterr() == ("", "")


def test_lines_end_at_column_120_unless_everything_is_asked_for():
    speed = {"perf/images_per_s": 39583.2, "perf/data_wait": 0.123, "perf/eta_s": 3723.0}
    metrics = {"total": 0.5, **{f"diagnostic_{i}": float(i) for i in range(20)}}
    line = monitor.progress_line(123456, 999999, 123.45, metrics, speed)
    assert 90 < len(line) <= 120 and line.endswith("| total 0.5 diagnostic_0 0")
    whole = monitor.progress_line(123456, 999999, 123.45, metrics, speed, columns=None)
    assert whole.startswith(line) and whole.endswith("diagnostic_19 19")


def test_the_parameters_are_one_line():
    assert (
        monitor.size_line({"a": jnp.zeros((1000, 300)), "b": jnp.zeros(5, "bfloat16")})
        == "300,005 parameters (1.20 MB)"
    )
