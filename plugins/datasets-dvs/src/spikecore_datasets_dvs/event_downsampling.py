"""Smaller pictures by pixels that integrate events, instead of joining squares.

Events fall into windows of `step_us` from the first event on, and into pixels of the smaller picture, ⌊x · w / W⌋. Each
of these adds up ON minus OFF:

integrator       v += ON - OFF;   v >= threshold: an ON event, v = 0;   -v >= threshold: an OFF event, v = 0
differentiator   the same in windows of step_us / bins; c counts the crossings of each polarity in a window of step_us;
                 an event wherever c rises from one window to the next

An event has the time of the beginning of its window. A last window that is not whole is left out.

Source: Ghosh et al., Insect-inspired Spatio-temporal Downsampling of Event-based Input (ICONS 2023).
Parity: Tonic's EventDownsampling, whose times count from 0 (tests/test_filters.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from spikecore.errors import DatasetError, OptionError
from spikecore.interfaces import Range
from spikecore_datasets_dvs.events import Events, check_inside, empty
from spikecore_datasets_dvs.transforms import Length, Rng, Sensor, Transform

Side = Annotated[int, Range(ge=1, lt=1 << 16)]
MOST_WINDOWS = 1_000_000


class _Downsampling(Transform):
    height: int
    width: int

    def size(self, sensor_size: Sensor) -> Sensor:
        if self.height > sensor_size[0] or self.width > sensor_size[1]:
            raise DatasetError(
                f"{self.name}: H, W = {self.height}, {self.width} are larger than the sensor, {sensor_size}"
            )
        return self.height, self.width


@dataclass(frozen=True)
class Integrate(_Downsampling):
    """Pixels that integrate and fire.

    Args:
        height, width: of the smaller picture.
        step_us: of a window.
        threshold: how many events of one polarity more than of the other make one.
    """

    name: ClassVar[str] = "integrate"
    height: Side
    width: Side
    step_us: Length = 1000
    threshold: Length = 1

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        size = self.size(sensor_size)
        parts = []
        for time, v in _potentials(events, sensor_size, size, self.step_us, self.threshold):
            for places, p in ((v >= self.threshold, 1), (-v >= self.threshold, 0)):
                y, x = np.nonzero(places)
                parts.append((np.full(len(x), time), x, y, np.full(len(x), p)))
        return _joined(parts, events)


@dataclass(frozen=True)
class Differentiate(_Downsampling):
    """Pixels that fire where activity rises.

    Args:
        height, width: of the smaller picture.
        step_us: of a window.
        bins: windows of the integration in it.
        threshold: as in `integrate`.
    """

    name: ClassVar[str] = "differentiate"
    height: Side
    width: Side
    step_us: Length = 1000
    bins: Length = 2
    threshold: Length = 1

    def __post_init__(self) -> None:
        if self.step_us % self.bins:
            raise OptionError(f"differentiate: step_us = {self.step_us} must be a multiple of bins = {self.bins}")

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        size = self.size(sensor_size)
        parts = []
        before: np.ndarray | None = None
        number = -1
        counts = np.zeros((*size, 2), np.int64)
        inner = _potentials(events, sensor_size, size, self.step_us // self.bins, self.threshold)
        for time, v in inner:
            while time // self.step_us > number:  # the window is over, and empty ones behind it
                if before is not None:
                    parts.append(_rises(before, counts, (number - 1) * self.step_us))
                before = counts if number >= 0 else None
                counts, number = np.zeros_like(counts), number + 1
            counts[..., 1] += v >= self.threshold
            counts[..., 0] += -v >= self.threshold
        if before is not None:
            parts.append(_rises(before, counts, (number - 1) * self.step_us))
        return _joined(parts, events)


Part = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _rises(before: np.ndarray, counts: np.ndarray, time: int) -> Part:
    y, x, p = np.nonzero(counts > before)
    return np.full(len(x), time), x, y, p


def _joined(parts: list[Part], events: Events) -> Events:
    if not parts:
        return empty()
    t, x, y, p = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Events(t.astype(np.int64) + events.t[0], x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))


def _potentials(
    events: Events, sensor_size: Sensor, size: Sensor, step_us: int, threshold: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The beginning of each window in which a pixel fires, and all potentials `[h, w]` before the reset."""
    check_inside(events, sensor_size)
    num_windows = events.duration_us // step_us
    if num_windows > MOST_WINDOWS:
        raise DatasetError(f"a recording makes {num_windows} windows of {step_us} µs, more than {MOST_WINDOWS}")
    if not num_windows:
        return
    x = events.x.astype(np.int64) * size[1] // sensor_size[1]
    y = events.y.astype(np.int64) * size[0] // sensor_size[0]
    place, sign = y * size[1] + x, np.where(events.p != 0, 1.0, -1.0)
    bounds = np.searchsorted(events.t, events.t[0] + step_us * np.arange(num_windows + 1, dtype=np.int64))
    v = np.zeros(size[0] * size[1], np.int64)
    for window in range(num_windows):
        part = slice(bounds[window], bounds[window + 1])
        v += np.bincount(place[part], sign[part], len(v)).astype(np.int64)
        is_firing = np.abs(v) >= threshold
        if is_firing.any():
            yield window * step_us, v.reshape(size).copy()
            v[is_firing] = 0
