"""From events to counts: F[j, c, y, x] = number of events of segment j at (x, y) with c = [p ≠ 0].

by number   segment j holds the events  j ⌊N / T⌋ … (j + 1) ⌊N / T⌋ - 1;  the last one all that are left
by time     Δ = ⌊(t_last - t_first) / T⌋;  segment j: t_first + j Δ <= t < t_first + (j + 1) Δ;  the last one the rest
duration    T = ⌈(t_last - t_first) / duration⌉, at least 1;  an event exactly at the end belongs to the last segment

Parity: SpikingJelly 2.0's integration by fixed number and by fixed duration (tests/test_frames.py); segments without
events, where it raises IndexError, are zeros here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events, check_inside

CHUNK = 1 << 17
"""Events whose addresses are computed at a time: they stay in the cache."""


def bounds_by_number(events: Events, num_steps: int) -> np.ndarray:
    """`[T + 1]` indices into the events."""
    size = len(events) // num_steps
    bounds = np.arange(num_steps + 1, dtype=np.int64) * size
    bounds[-1] = len(events)
    return bounds


def bounds_by_time(events: Events, num_steps: int) -> np.ndarray:
    """`[T + 1]` indices into the events."""
    width = events.duration_us // num_steps
    return _bounds(events, width, num_steps)


def bounds_by_duration(events: Events, duration_us: int, max_steps: int) -> np.ndarray:
    """`[T + 1]` indices into the events.

    Raises:
        DatasetError: T is above `max_steps`.
    """
    num_steps = max(1, -(-events.duration_us // duration_us))
    if num_steps > max_steps:
        raise DatasetError(
            f"a recording of {events.duration_us} µs makes {num_steps} steps of {duration_us} µs, more than "
            f"max_steps = {max_steps}: raise it, or look for events with a wrong time"
        )
    return _bounds(events, duration_us, num_steps)


def _bounds(events: Events, width: int, num_steps: int) -> np.ndarray:
    bounds = np.zeros(num_steps + 1, np.int64)
    bounds[-1] = len(events)
    if len(events):
        bounds[1:-1] = np.searchsorted(events.t, events.t[0] + width * np.arange(1, num_steps, dtype=np.int64))
    return bounds


def count_frames(events: Events, bounds: np.ndarray, sensor_size: tuple[int, int]) -> np.ndarray:
    """Counts `[T, 2, H, W]` in the smallest unsigned dtype that holds them.

    Raises:
        DatasetError: an event lies outside the sensor.
    """
    check_inside(events, sensor_size)
    height, width = sensor_size
    num_places = 2 * height * width
    out = np.empty((len(bounds) - 1, num_places), np.uint32)
    for step, addresses in _addresses(events, bounds, height, width):
        out[step] = np.bincount(next(addresses), minlength=num_places)
        for more in addresses:
            out[step] += np.bincount(more, minlength=num_places).astype(np.uint32)
    return compact(out).reshape(-1, 2, height, width)


def _addresses(
    events: Events, bounds: np.ndarray, height: int, width: int
) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """For each step the places (c H + y) W + x of its events, in chunks of one buffer; at least one."""
    narrow = 2 * height * width < 1 << 31  # half the bytes to move
    buffer = np.empty(min(CHUNK, max(len(events), 1)), np.int32 if narrow else np.int64)

    def parts(start: int, stop: int) -> Iterator[np.ndarray]:
        for low in range(start, max(stop, start + 1), CHUNK):
            part = slice(low, min(low + CHUNK, stop))
            place = buffer[: max(part.stop - low, 0)]
            np.multiply(events.p[part] != 0, height, out=place, casting="unsafe")
            np.add(place, events.y[part], out=place, casting="unsafe")
            np.multiply(place, width, out=place)
            np.add(place, events.x[part], out=place, casting="unsafe")
            yield place

    for step in range(len(bounds) - 1):
        yield step, parts(int(bounds[step]), int(bounds[step + 1]))


def compact(counts: np.ndarray) -> np.ndarray:
    """The same whole numbers in the smallest unsigned dtype."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))), copy=False)


def places(events: Events, sensor_size: tuple[int, int]) -> np.ndarray:
    """(c H + y) W + x of every event, as int64."""
    height, width = sensor_size
    return ((events.p != 0) * np.int64(height) + events.y) * width + events.x
