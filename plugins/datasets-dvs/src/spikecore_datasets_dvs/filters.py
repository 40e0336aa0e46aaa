"""Further transforms of recordings, as in `transforms`: time, single pixels, polarities, and noise.

crop_time          start <= t < stop
time_skew          t' = ⌊coefficient · t + offset⌋
hot_pixels         pixels with more than rate · (t_last - t_first) events are left out
drop_pixels        named pixels are left out
decimate           of the events of each pixel every n-th stays: number n, 2 n, …
merge_polarities   all events get the same polarity
uniform_noise      further events, uniform in time, place and polarity (random: for `augment`)

Parity: Tonic's CropTime (its end is inclusive), TimeSkew, DropPixel, Decimation, MergePolarities
(tests/test_filters.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from spikecore.errors import DatasetError, OptionError
from spikecore.interfaces import Range
from spikecore_datasets_dvs.events import LONGEST_US, Events, check_inside, in_order, join
from spikecore_datasets_dvs.transforms import Length, Rng, Sensor, Transform

Rate = Annotated[float, Range(gt=0.0)]
Bit = Annotated[int, Range(ge=0, le=1)]


@dataclass(frozen=True)
class CropTime(Transform):
    """Keeps the events of an interval of time.

    Args:
        start_us: the first moment that stays.
        stop_us: the first moment behind; -1 leaves the end open.
        from_first: both count from the first event of the recording, else as its times do.
    """

    name: ClassVar[str] = "crop_time"
    moves_pixels: ClassVar[bool] = False
    start_us: int = 0
    stop_us: int = -1
    from_first: bool = True

    def __post_init__(self) -> None:
        if self.stop_us != -1 and self.stop_us <= self.start_us:
            raise OptionError(f"crop_time: stop_us = {self.stop_us} must be behind start_us = {self.start_us}, or -1")

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        zero = int(events.t[0]) if self.from_first and len(events) else 0
        first = int(np.searchsorted(events.t, zero + self.start_us))
        stop = len(events) if self.stop_us == -1 else int(np.searchsorted(events.t, zero + self.stop_us))
        return events[first:stop]


@dataclass(frozen=True)
class TimeSkew(Transform):
    """Time runs faster or slower, and begins elsewhere.

    Args:
        coefficient: below 1 makes the recording shorter.
        offset_us: is added.
    """

    name: ClassVar[str] = "time_skew"
    moves_pixels: ClassVar[bool] = False
    coefficient: Rate = 1.0
    offset_us: float = 0.0

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        t = np.floor(events.t * self.coefficient + self.offset_us)
        if len(t) and not max(abs(float(t[0])), abs(float(t[-1]))) <= LONGEST_US:  # nor is NaN
            raise DatasetError(
                f"time_skew: times reach {t[-1]:g} µs, beyond {LONGEST_US}: choose a smaller coefficient"
            )
        return events.replace(t=t.astype(np.int64))


def _pixels(events: Events, sensor_size: Sensor) -> np.ndarray:
    check_inside(events, sensor_size)
    return events.y.astype(np.int64) * sensor_size[1] + events.x


@dataclass(frozen=True)
class HotPixels(Transform):
    """Drops the events of pixels that are busier than any scene could make them.

    A recording of a single moment has no rates, and stays as it is.

    Args:
        rate_hz: the most events per second of a sound pixel, over the whole recording.
    """

    name: ClassVar[str] = "hot_pixels"
    moves_pixels: ClassVar[bool] = False
    rate_hz: Rate = 1000.0

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        if not events.duration_us:
            return events
        pixel = _pixels(events, sensor_size)
        is_hot = (
            np.bincount(pixel, minlength=sensor_size[0] * sensor_size[1]) > self.rate_hz * events.duration_us * 1e-6
        )
        return events[~is_hot[pixel]]


@dataclass(frozen=True)
class DropPixels(Transform):
    """Drops the events of named pixels.

    Args:
        places: `[[x, y], …]`.
    """

    name: ClassVar[str] = "drop_pixels"
    moves_pixels: ClassVar[bool] = False
    places: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if wrong := [place for place in self.places if len(place) != 2 or min(place) < 0]:
            raise OptionError(f"drop_pixels: places are [x, y] from 0 on; got {list(wrong[0])}")

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        pixel = _pixels(events, sensor_size)
        is_dropped = np.zeros(sensor_size[0] * sensor_size[1], bool)
        for x, y in self.places:
            if x >= sensor_size[1] or y >= sensor_size[0]:
                raise DatasetError(f"drop_pixels: [{x}, {y}] lies outside the sensor of H, W = {sensor_size}")
            is_dropped[y * sensor_size[1] + x] = True
        return events[~is_dropped[pixel]]


@dataclass(frozen=True)
class Decimate(Transform):
    """Keeps every n-th event of each pixel.

    Args:
        n: 1 keeps all.
    """

    name: ClassVar[str] = "decimate"
    moves_pixels: ClassVar[bool] = False
    n: Length = 2

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        pixel = _pixels(events, sensor_size)
        order = np.argsort(pixel, kind="stable")
        by_pixel = pixel[order]
        starts = np.flatnonzero(np.diff(by_pixel, prepend=-1))
        number = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        keep = np.zeros(len(order), bool)
        keep[order] = (number + 1) % self.n == 0
        return events[keep]


@dataclass(frozen=True)
class MergePolarities(Transform):
    """All events get the same polarity.

    Args:
        p: that one.
    """

    name: ClassVar[str] = "merge_polarities"
    moves_pixels: ClassVar[bool] = False
    p: Bit = 0

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        return events.replace(p=np.full(len(events), self.p, np.uint8))


@dataclass(frozen=True)
class UniformNoise(Transform):
    """Further events, uniform in time (first event to last), place and polarity.

    Args:
        num_events: how many; drawn up to it, with `is_most`.
        is_most: the number itself is uniform in 0 .. num_events.
    """

    name: ClassVar[str] = "uniform_noise"
    moves_pixels: ClassVar[bool] = False
    num_events: Length = 100
    is_most: bool = False

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        if not len(events):  # there is no time to be noisy in
            return events
        count = int(rng.integers(self.num_events + 1)) if self.is_most else self.num_events
        first, last = int(events.t[0]), int(events.t[-1])
        noise = Events(
            rng.integers(first, last + 1, count),
            rng.integers(0, sensor_size[1], count).astype(np.uint16),
            rng.integers(0, sensor_size[0], count).astype(np.uint16),
            rng.integers(0, 2, count).astype(np.uint8),
        )
        return in_order(join([events, noise]))
