"""From events to counts: F[j, c, y, x] = number of events of segment j at (x, y) with c = [p ≠ 0].

by number   segment j holds the events  j ⌊N / T⌋ … (j + 1) ⌊N / T⌋ - 1;  the last one all that are left
by time     Δ = ⌊(t_last - t_first) / T⌋;  segment j: t_first + j Δ <= t < t_first + (j + 1) Δ;  the last one the rest
duration    T = ⌈(t_last - t_first) / duration⌉, at least 1;  an event exactly at the end belongs to the last segment

Parity: SpikingJelly 2.0's integration by fixed number and by fixed duration (tests/test_frames.py); segments without
events, where it raises IndexError, are zeros here.
"""

from __future__ import annotations

import numpy as np
import torch

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events, check_inside

CHUNK = 1 << 19
"""Events whose addresses are computed at a time."""
NARROW = 1 << 15
"""Places that have 16-bit addresses."""
DENSE = 1.5
"""Events for each place from which on one way of counting is faster than the other (measured)."""
BLOCK = 1 << 19
"""Places that are counted at a time by the other way: a megabyte."""


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
    place = np.empty(min(CHUNK, len(events)), _narrowest(num_places))
    is_dense = out.size <= NARROW or len(events) > DENSE * out.size
    count = _bincounts if is_dense else _scattered
    size = max(1, (NARROW if is_dense else BLOCK) // num_places)
    for first in range(0, len(out), size):
        inner = edges[first : first + size + 1]
        if inner[0] == inner[-1]:
            continue
        counts = count(events, inner, sensor_size, place)
        most = int(counts.max())
        if most > np.iinfo(out.dtype).max:
            out = out.astype(np.min_scalar_type(most))
        out[first : first + size] = counts.reshape(-1, num_places)
    return out.reshape(-1, 2, height, width)


def _bincounts(events: Events, edges: list[int], sensor_size: tuple[int, int], buffer: np.ndarray) -> np.ndarray:
    """Counts of neighbouring steps, for more events than places: an int64 is made for each place."""
    size = (len(edges) - 1) * 2 * sensor_size[0] * sensor_size[1]
    counts: np.ndarray | None = None
    for low in range(edges[0], edges[-1], CHUNK):
        place = _places(events, low, min(low + CHUNK, edges[-1]), sensor_size, buffer)
        _tell_apart(place, low, edges, sensor_size)
        more = torch.bincount(_tensor(place), minlength=size).numpy()
        counts = more if counts is None else np.add(counts, more, out=counts)
    assert counts is not None, "there are events"
    return counts


def _scattered(events: Events, edges: list[int], sensor_size: tuple[int, int], buffer: np.ndarray) -> np.ndarray:
    """The same for more places than events: an int64 is made for each event, and two bytes for each place."""
    most, count = max(np.diff(edges)), min(edges[-1] - edges[0], len(buffer))
    ones = torch.ones(count, dtype=torch.int16 if most < 1 << 15 else torch.int32)
    counts = torch.zeros((len(edges) - 1) * 2 * sensor_size[0] * sensor_size[1], dtype=ones.dtype)
    index = torch.empty(count, dtype=torch.int64)
    for low in range(edges[0], edges[-1], CHUNK):
        place = _places(events, low, min(low + CHUNK, edges[-1]), sensor_size, buffer)
        part = index[: len(place)].copy_(_tensor(place))
        _tell_apart(part.numpy(), low, edges, sensor_size)
        counts.scatter_add_(0, part, ones[: len(place)])
    return counts.numpy()


def _narrowest(num_places: int) -> type[np.unsignedinteger | np.signedinteger]:
    """For addresses: torch counts narrow ones as they are, and the fewer bytes the faster."""
    return np.uint16 if num_places <= NARROW else np.int32 if num_places < 1 << 31 else np.int64


def _places(events: Events, low: int, high: int, sensor_size: tuple[int, int], buffer: np.ndarray) -> np.ndarray:
    """The places (c H + y) W + x of the events low … high - 1, in the buffer."""
    height, width = sensor_size
    x, y = events.x[low:high], events.y[low:high]
    if int(x.max()) >= width or int(y.max()) >= height:
        check_inside(events, sensor_size)
    place = buffer[: high - low]
    np.copyto(place, events.p[low:high] != 0)
    place *= height
    place += y
    place *= width
    place += x
    return place


def _tell_apart(place: np.ndarray, low: int, edges: list[int], sensor_size: tuple[int, int]) -> None:
    """Addresses of the events from `low` on: those of every step behind those of the step before."""
    num_places = 2 * sensor_size[0] * sensor_size[1]
    for step in range(1, len(edges) - 1):
        start, stop = max(edges[step] - low, 0), edges[step + 1] - low
        if start < min(stop, len(place)):
            place[start:stop] += step * num_places


def _tensor(place: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(place.view(np.int16) if place.dtype == np.uint16 else place)


def compact(counts: np.ndarray) -> np.ndarray:
    """The same whole numbers in the smallest unsigned dtype."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))), copy=False)


def places(events: Events, sensor_size: tuple[int, int]) -> np.ndarray:
    """(c H + y) W + x of every event, as int64."""
    height, width = sensor_size
    return ((events.p != 0) * np.int64(height) + events.y) * width + events.x
