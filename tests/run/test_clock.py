"""The parts of the time add up to the total, whatever is nested in what."""

import pytest

from spikecore.run import clock as module
from spikecore.run.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still until it is moved."""
    moment = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: moment[0])

    def move(seconds):
        moment[0] += seconds

    return move


def test_parts_and_the_rest_make_the_total(now):
    clock = Clock()
    now(2.0)
    with clock.timed("a"):
        now(3.0)
    with clock.timed("b"):
        now(1.0)
        with clock.timed("a"):
            now(4.0)
            with clock.timed("c"):
                now(0.5)
        now(0.25)
    now(0.125)
    assert clock.times() == {"a": 7.0, "c": 0.5, "b": 1.25, "other": 2.125, "total": 10.875}


def test_a_part_that_fails_counts_too(now):
    clock = Clock()

    def fail():
        with clock.timed("a"):
            now(3.0)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    with clock.timed("b"):
        now(1.0)
    assert clock.times() == {"a": 3.0, "b": 1.0, "other": 0.0, "total": 4.0}


def test_an_earlier_process_is_added(now):
    clock = Clock()
    with clock.timed("a"):
        now(3.0)
    clock.add({"a": 10.0, "b": 5.0, "other": 1.0, "total": 16.0})
    now(0.5)
    assert clock.times() == {"a": 13.0, "b": 5.0, "other": 1.5, "total": 19.5}
