"""Interleaved timing, A B C A B C, so that changes of the machine's speed affect every candidate alike.

    wall   elapsed seconds; on an accelerator, between two events of its stream
    cpu    user and system time of this process, all threads

A sample is the mean of `repeats` calls, chosen so that it lasts some milliseconds. Untimed calls precede it: they
refill the caches, which the previous candidate has filled with its own data, and outlast its threads, which keep
spinning for a while. Medians and percentiles are over samples.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch

K = TypeVar("K", bound=Hashable)
Run = Callable[[], object]
SHORTEST_SAMPLE_S = 5e-3
WARM_UP_S = 25e-3
"""Before each sample. The threads of torch's operators spin for about 8 ms after each of them; for twice as long on a
core that another thread wants too."""
MOST_REPEATS = 1000
SHORTEST_CALL_S = 1e-7
"""Taken for a call that the clock shows as 0 s, so that the untimed calls before a sample end."""
SLOW_S = 10.0
"""A call this long is tried twice instead of three times; from a tenth of it on, no untimed calls precede samples."""
PATIENCE_S, ENOUGH = 20.0, 3
"""A candidate that has taken `PATIENCE_S` seconds in a cell is not timed any more once it has `ENOUGH` samples."""


class Sample(NamedTuple):
    """Seconds per call."""

    wall: float
    cpu: float


Clock = Callable[[Run, int], Sample]


def host_clock(run: Run, repeats: int) -> Sample:
    """Time `repeats` calls on the CPU."""
    calls = range(repeats)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in calls:
        run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Sample(wall / repeats, cpu / repeats)


def accelerator_clock(device: torch.device) -> Clock:
    """Time calls on an accelerator: from an event before to an event after, both waited for."""

    def clock(run: Run, repeats: int) -> Sample:
        start, end = (torch.Event(device=device, enable_timing=True) for _ in range(2))
        torch.accelerator.synchronize(device)
        cpu = time.process_time()
        start.record()
        for _ in range(repeats):
            run()
        end.record()
        cpu = time.process_time() - cpu
        torch.accelerator.synchronize(device)
        return Sample(start.elapsed_time(end) / 1000 / repeats, cpu / repeats)

    return clock


def clock_for(device: torch.device) -> Clock:
    """The clock that is right for a device."""
    return host_clock if device.type == "cpu" else accelerator_clock(device)


@dataclass
class Times:
    """What was measured of one candidate.

    Args:
        first_s: wall time of its first call in this process.
        repeats: calls per sample.
        is_quick: calls that are not timed go before each sample.
        samples: in the order of the rounds.
        error: why it stopped, if it raised.
    """

    first_s: float = math.nan
    repeats: int = 1
    is_quick: bool = True
    samples: list[Sample] = field(default_factory=list)
    error: str = ""

    @property
    def has_enough(self) -> bool:
        """Whether it is so slow that the others should not wait for it any longer."""
        spent = sum(sample.wall for sample in self.samples) * self.repeats
        return len(self.samples) >= ENOUGH and spent >= PATIENCE_S

    def wall_ms(self, percent: float = 50) -> float:
        """Percentile of the wall time of one call, in ms."""
        return 1000 * percentile([sample.wall for sample in self.samples], percent)

    def cpu_ms(self) -> float:
        """Median CPU time of one call, in ms."""
        return 1000 * statistics.median(sample.cpu for sample in self.samples)


@dataclass(frozen=True)
class Effort:
    """How long one cell is measured.

    Args:
        seconds: no new round begins after this.
        least: rounds that are measured whatever they cost.
        most: rounds after which it is enough.
    """

    seconds: float = 4.0
    least: int = 5
    most: int = 100


def percentile(values: list[float], percent: float) -> float:
    """Linear interpolation between the two nearest order statistics."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def interleave(
    runs: Mapping[K, Run], clock: Clock, effort: Effort, now: Callable[[], float] = time.monotonic
) -> dict[K, Times]:
    """Time candidates in turns.

    One that raises is left out from then on; its `Times.error` says why.

    Args:
        runs: name → one call.
        clock: times calls.
        effort: when to stop.
        now: the clock of the budget, in seconds.
    """
    times = {name: Times() for name in runs}
    with _quiet():
        for name, run in runs.items():
            _catch_error(_warm_up, run, clock, times[name])
        start = now()
        for num_rounds in range(effort.most):
            if num_rounds >= effort.least and now() - start >= effort.seconds:
                break
            for name, run in runs.items():
                timed = times[name]
                if not timed.error and not timed.has_enough:
                    _catch_error(_take_sample, run, clock, timed)
    return times


def _warm_up(run: Run, clock: Clock, times: Times) -> None:
    """Measure the first call and choose the number of repeats."""
    times.first_s = clock(run, 1).wall
    once = clock(run, 1).wall
    if once < SLOW_S:  # some candidates compile again in the second call: the third one shows their speed
        once = clock(run, 1).wall
    times.is_quick = once < SLOW_S / 10
    times.repeats = MOST_REPEATS
    if once > 0:
        times.repeats = min(MOST_REPEATS, max(1, math.ceil(SHORTEST_SAMPLE_S / once)))


def _take_sample(run: Run, clock: Clock, times: Times) -> None:
    spent = 0.0
    while times.is_quick and spent < WARM_UP_S:
        spent += max(clock(run, times.repeats).wall, SHORTEST_CALL_S) * times.repeats
    times.samples.append(clock(run, times.repeats))


def _catch_error(work: Callable[[Run, Clock, Times], None], run: Run, clock: Clock, times: Times) -> None:
    try:
        work(run, clock, times)
    except Exception as error:
        times.error = f"{type(error).__name__}: {error}"


@contextmanager
def _quiet() -> Iterator[None]:
    """No garbage collection in the middle of a sample."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
