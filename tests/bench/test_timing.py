"""Order and arithmetic of the timing, with clocks that are given, never with the time that passes."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikecore.bench.timing import Effort, Sample, accelerator_clock, clock_for, host_clock, interleave, percentile


class Counter:
    """A clock that calls as it is told and answers from a list; also the clock of the budget."""

    def __init__(self, walls=(1.0,)):
        self.walls, self.asked, self.now_s = list(walls), [], 0.0

    def __call__(self, run, repeats):
        for _ in range(repeats):
            run()
        wall = self.walls[len(self.asked) % len(self.walls)]
        self.asked.append(repeats)
        self.now_s += wall * repeats
        return Sample(wall, wall / 2)


def test_candidates_take_turns_after_their_warm_up():
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "ABC"}
    times = interleave(runs, Counter(), Effort(0, least=3, most=3), now=lambda: 0.0)
    assert "".join(order) == "AAABBBCCC" + "ABC" * 3
    assert all(len(timing.samples) == 3 for timing in times.values())


def test_the_budget_ends_a_cell_but_not_before_the_least_rounds():
    clock = Counter([1.0])
    times = interleave({"a": lambda: None}, clock, Effort(10.0, least=2, most=50), now=lambda: clock.now_s)
    assert len(times["a"].samples) == 10
    times = interleave({"a": lambda: None}, clock, Effort(0.5, least=4, most=50), now=lambda: clock.now_s)
    assert len(times["a"].samples) == 4
    times = interleave({"a": lambda: None}, clock, Effort(1e9, least=1, most=7), now=lambda: clock.now_s)
    assert len(times["a"].samples) == 7


def test_medians_and_percentiles_come_from_the_samples_and_the_first_call_stands_apart():
    warm = [9.0, 8.0, 7.0]
    walls = [0.5, 0.1, 0.3, 0.2, 0.4]
    times = interleave({"a": lambda: None}, Counter(warm + walls), Effort(0, least=5, most=5))["a"]
    assert times.first_s == 9.0
    assert times.wall_ms() == pytest.approx(300)
    assert times.wall_ms(10) == pytest.approx(140)
    assert times.wall_ms(90) == pytest.approx(460)
    assert times.cpu_ms() == pytest.approx(150)


def test_short_calls_are_repeated_until_the_clock_can_see_them():
    clock = Counter([30e-6])
    calls = []
    times = interleave({"a": lambda: calls.append(1)}, clock, Effort(0, least=2, most=2))["a"]
    assert times.repeats == 167
    assert len(calls) == 3 + 2 * (5 * 167 + 167)  # before each sample 25 ms that are not timed
    assert interleave({"a": lambda: None}, Counter([0.0]), Effort(0, 1, 1))["a"].repeats == 1000


def test_nobody_waits_for_ever_for_a_slow_candidate():
    order = []

    def clock(run, repeats):
        run()
        return Sample(15.0 if order[-1] == "slow" else 0.01, 0.0)

    runs = {name: lambda name=name: order.append(name) for name in ("slow", "fast")}
    times = interleave(runs, clock, Effort(0, least=6, most=6), now=lambda: 0.0)
    assert len(times["slow"].samples) == 3
    assert len(times["fast"].samples) == 6
    assert order == ["slow"] * 2 + ["fast"] * 3 + ["slow", *["fast"] * 4] * 3 + ["fast"] * 4 * 3


def test_a_candidate_that_raises_leaves_the_others_alone():
    calls = []

    def breaks():
        calls.append(1)
        if len(calls) > 4:
            raise MemoryError("no more")

    times = interleave({"bad": breaks, "good": lambda: None}, Counter(), Effort(0, least=5, most=5))
    assert times["bad"].error == "MemoryError: no more"
    assert len(calls) == 5
    assert not times["good"].error
    assert len(times["good"].samples) == 5


def test_a_candidate_that_raises_at_once_is_not_called_again():
    times = interleave({"bad": lambda: 1 / 0}, Counter(), Effort(0, least=5, most=5))
    assert times["bad"].error.startswith("ZeroDivisionError")
    assert not times["bad"].samples
    assert math.isnan(times["bad"].first_s)


@given(st.lists(st.floats(0, 1e3), min_size=1), st.floats(0, 100))
def test_percentiles_are_numpys(values, percent):
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), rel=1e-9, abs=1e-9)


def test_an_accelerator_is_timed_between_two_events_that_are_waited_for(monkeypatch):
    log = []

    class Event:
        def __init__(self, device, enable_timing):
            assert enable_timing
            self.name = f"event {len(log)}"
            log.append(f"make on {device}")

        def record(self):
            log.append(f"record {self.name}")

        def elapsed_time(self, end):
            log.append(f"{self.name} to {end.name}")
            return 12.0  # ms

    device = torch.device("cuda:1")
    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: log.append(f"wait for {device}"))
    sample = accelerator_clock(device)(lambda: log.append("call"), 3)
    assert sample.wall == pytest.approx(0.004)
    assert log == [
        "make on cuda:1",
        "make on cuda:1",
        "wait for cuda:1",
        "record event 0",
        *["call"] * 3,
        "record event 1",
        "wait for cuda:1",
        "event 0 to event 1",
    ]


def test_the_device_decides_the_clock():
    assert clock_for(torch.device("cpu")) is host_clock
    assert clock_for(torch.device("cuda")) is not host_clock


def test_the_host_clock_calls_as_often_as_it_is_told_and_divides(monkeypatch):
    walls, cpus, calls = iter([10.0, 16.0]), iter([1.0, 4.0]), []
    monkeypatch.setattr(time, "perf_counter", lambda: next(walls))
    monkeypatch.setattr(time, "process_time", lambda: next(cpus))
    assert host_clock(lambda: calls.append(1), 3) == Sample(wall=2.0, cpu=1.0)
    assert len(calls) == 3
