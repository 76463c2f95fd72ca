"""A signal ends a run at the next safe point, and at once only where nothing is compiled."""

import signal

import pytest

from hamjepa_jax.run.preemption import StopRequest
from hamjepa_jax.training.mesh import make_mesh


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_a_safe_point(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        stop.check()  # Nothing was asked for.
        assert not stop.agreed(make_mesh())
        signal.raise_signal(number)
        assert stop.requested == number.name
        assert stop.agreed(make_mesh())
        with pytest.raises(SystemExit) as ended:
            stop.check()
    assert ended.value.code == 0
    assert signal.getsignal(number) is before


def test_a_signal_ends_long_reading_there_and_then():
    with StopRequest() as stop:
        with pytest.raises(SystemExit) as ended, stop.at_once():
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 0
        with pytest.raises(SystemExit), stop.at_once():  # One that came before is noticed at the entry.
            raise AssertionError("not reached")


def test_after_reading_a_signal_waits_again():
    with StopRequest() as stop:
        with stop.at_once():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested == "SIGTERM"


def test_a_second_signal_is_the_caller_s():
    taken, before = [], signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: taken.append("caller"))
    try:
        with StopRequest():
            signal.raise_signal(signal.SIGTERM)
            assert not taken
            signal.raise_signal(signal.SIGTERM)
        assert taken == ["caller"]
    finally:
        signal.signal(signal.SIGTERM, before)
