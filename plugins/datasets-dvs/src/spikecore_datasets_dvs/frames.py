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
import torch

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events, check_inside

CHUNK = 1 << 19
"""Events whose addresses are computed at a time."""
NARROW = 1 << 15
"""Places that have 16-bit addresses."""


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

    Args:
        events: in time order.
        bounds: `[T + 1]`, not decreasing: segment j holds the events `bounds[j] … bounds[j + 1] - 1`.
        sensor_size: `(H, W)`.

    Raises:
        DatasetError: an event lies outside the sensor.
    """
    height, width = sensor_size
    num_places, edges = 2 * height * width, bounds.tolist()
    out = np.zeros((len(edges) - 1, num_places), np.uint8)
    for first, counts in _groups(events, edges, sensor_size, max(1, NARROW // num_places)):
        most = int(counts.max())
        if most > np.iinfo(out.dtype).max:
            out = out.astype(np.min_scalar_type(most))
        counts = counts.reshape(-1, num_places)
        out[first : first + len(counts)] = counts
    return out.reshape(-1, 2, height, width)


def _groups(
    events: Events, edges: list[int], sensor_size: tuple[int, int], size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Counts of neighbouring steps, which are taken `size` at a time, with the first of them; not of empty ones."""
    num_places, num_steps = 2 * sensor_size[0] * sensor_size[1], len(edges) - 1
    buffers = _buffers(num_places, min(CHUNK, len(events)))
    step, counts = 0, None
    for low in range(edges[0], edges[-1], CHUNK):
        high = min(low + CHUNK, edges[-1])
        place = _places(events[low:high], sensor_size, buffers)
        start = low
        while start < high:
            while edges[step + 1] <= start:
                step += 1
            first = step - step % size
            behind = min(first + size, num_steps)
            stop = min(edges[behind], high)
            for later in range(first + 1, behind):
                place[max(edges[later], start) - low : max(min(edges[later + 1], stop), start) - low] += (
                    later - first
                ) * num_places
            more = torch.bincount(_tensor(place[start - low : stop - low]), minlength=(behind - first) * num_places)
            counts = more if counts is None else counts + more
            if stop == edges[behind]:
                yield first, counts.numpy()
                counts = None
            start = stop


def _buffers(num_places: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For addresses, in the smallest dtype: torch counts narrow ones as they are, and the fewer bytes the faster."""
    kind = np.uint16 if num_places <= NARROW else np.int32 if num_places < 1 << 31 else np.int64
    return np.empty(count, kind), np.empty(count, kind)


def _places(events: Events, sensor_size: tuple[int, int], buffers: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The places (c H + y) W + x of a few events, in the first of the buffers."""
    height, width = sensor_size
    if int(events.x.max()) >= width or int(events.y.max()) >= height:
        check_inside(events, sensor_size)
    place, offset = (buffer[: len(events)] for buffer in buffers)
    np.multiply(events.y, width, out=place, dtype=place.dtype)
    np.add(place, events.x, out=place)
    np.multiply(events.p != 0, height * width, out=offset, dtype=offset.dtype)
    return np.add(place, offset, out=place)


def _tensor(place: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(place.view(np.int16) if place.dtype == np.uint16 else place)


def compact(counts: np.ndarray) -> np.ndarray:
    """The same whole numbers in the smallest unsigned dtype."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))), copy=False)


def places(events: Events, sensor_size: tuple[int, int]) -> np.ndarray:
    """(c H + y) W + x of every event, as int64."""
    height, width = sensor_size
    return ((events.p != 0) * np.int64(height) + events.y) * width + events.x
