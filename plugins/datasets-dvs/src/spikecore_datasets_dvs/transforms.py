"""Changes to recordings, each a frozen dataclass with a name; chosen in a dataset's `transforms` and `augment`.

transforms   the same every time, for every split; their result is cached
augment      random, for the training split only; drawn anew for every (seed, epoch, index), so a run repeats itself

level     call                                          what changes
events    (events, sensor_size, rng) → events           `sensor_size` also changes with crops: see `size`
frames    (frames [T, ...], rng) → frames               behind the representation, and behind the cache
batch     in `collate`                                  → x `[T, B, ...]`, labels `[B, num_classes]`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np

from spikecore.datasets import CutMix
from spikecore.errors import DatasetError
from spikecore.interfaces import Range
from spikecore_datasets_dvs.events import Events, check_inside, in_order

CHUNK = 1 << 15
"""Events that are sorted at a time: they stay in the cache."""
Sensor = tuple[int, int]
Probability = Annotated[float, Range(ge=0.0, le=1.0)]
Length = Annotated[int, Range(ge=1)]
OrSame = Annotated[int, Range(ge=0, lt=1 << 16)]
Rng = np.random.Generator


class Transform:
    """Base of all; `level` says how it is called."""

    name: ClassVar[str]
    level: ClassVar[Literal["events", "frames", "batch"]] = "events"
    moves_pixels: ClassVar[bool] = True
    """It may change where something is in the picture: labels that are boxes would not follow."""

    def size(self, sensor_size: Sensor) -> Sensor:
        """The sensor behind it."""
        return sensor_size


def apply(transforms: tuple[Transform, ...], events: Events, sensor_size: Sensor, rng: Rng) -> tuple[Events, Sensor]:
    """The transforms of events, one after the other; others are passed over."""
    for transform in transforms:
        if transform.level == "events":
            events = transform(events, sensor_size, rng)  # type: ignore[operator]
            sensor_size = transform.size(sensor_size)
    return events, sensor_size


def _chunks(count: int) -> Iterator[slice]:
    for low in range(0, count, CHUNK):
        yield slice(low, min(low + CHUNK, count))


def _cut(events: Events, top: int, left: int, height: int, width: int) -> Events:
    x, y = events.x.astype(np.int32) - left, events.y.astype(np.int32) - top
    keep = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    kept = events[keep]
    return kept.replace(x=x[keep].astype(np.uint16), y=y[keep].astype(np.uint16))


def _fits(height: int, width: int, sensor_size: Sensor) -> None:
    if height > sensor_size[0] or width > sensor_size[1]:
        raise DatasetError(f"a crop of H, W = {height}, {width} is larger than the sensor, {sensor_size}")


@dataclass(frozen=True)
class Crop(Transform):
    """The middle of the picture.

    Args:
        height, width: what is left.
    """

    name: ClassVar[str] = "crop"
    height: Length
    width: Length

    def size(self, sensor_size: Sensor) -> Sensor:
        _fits(self.height, self.width, sensor_size)
        return self.height, self.width

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        height, width = self.size(sensor_size)
        top, left = (sensor_size[0] - height) // 2, (sensor_size[1] - width) // 2
        return _cut(events, top, left, height, width)


@dataclass(frozen=True)
class RandomCrop(Transform):
    """Crops a random part of the picture, after adding an empty margin.

    Args:
        height, width: what is left; 0 is as many as there were before the margin.
        padding: width of the margin.
    """

    name: ClassVar[str] = "random_crop"
    height: OrSame = 0
    width: OrSame = 0
    padding: OrSame = 0

    def size(self, sensor_size: Sensor) -> Sensor:
        height, width = self.height or sensor_size[0], self.width or sensor_size[1]
        _fits(height, width, (sensor_size[0] + 2 * self.padding, sensor_size[1] + 2 * self.padding))
        return height, width

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        height, width = self.size(sensor_size)
        places = (side + 2 * self.padding - kept + 1 for side, kept in zip(sensor_size, (height, width), strict=True))
        top, left = (int(rng.integers(count)) - self.padding for count in places)
        return _cut(events, top, left, height, width)


@dataclass(frozen=True)
class Downsample(Transform):
    """Joins pixels in squares; keeps all events.

    Args:
        factor: side of a square.
    """

    name: ClassVar[str] = "downsample"
    factor: Annotated[int, Range(ge=1, le=65_535)] = 2

    def size(self, sensor_size: Sensor) -> Sensor:
        return -(-sensor_size[0] // self.factor), -(-sensor_size[1] // self.factor)

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        return events.replace(x=events.x // np.uint16(self.factor), y=events.y // np.uint16(self.factor))


@dataclass(frozen=True)
class Flip(Transform):
    """Mirror x or y, exchange the polarities, or run time backwards (which exchanges the polarities as well).

    Args:
        axis: what is flipped.
    """

    name: ClassVar[str] = "flip"
    axis: Literal["x", "y", "polarity", "time"] = "x"

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        if self.axis == "x":
            return events.replace(x=np.uint16(sensor_size[1] - 1) - events.x)
        if self.axis == "y":
            return events.replace(y=np.uint16(sensor_size[0] - 1) - events.y)
        other = (events.p == 0).astype(np.uint8)
        if self.axis == "polarity" or not len(events):
            return events.replace(p=other)
        return events.replace(t=events.t[0] + events.t[-1] - events.t, p=other)[::-1]


@dataclass(frozen=True)
class RandomFlip(Flip):
    """Applies `flip` at random.

    Args:
        axis: what is flipped.
        p: probability.
    """

    name: ClassVar[str] = "random_flip"
    p: Probability = 0.5

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        return super().__call__(events, sensor_size, rng) if rng.random() < self.p else events


@dataclass(frozen=True)
class DropEvents(Transform):
    """Drops events: each with probability p, or all in a random window or box that covers the share p.

    Source: Gu et al., EventDrop: Data Augmentation for Event-based Learning (IJCAI 2021).

    Args:
        p: the probability, or the share of the duration or of the area.
        by: which of these.
    """

    name: ClassVar[str] = "drop_events"
    moves_pixels: ClassVar[bool] = False
    p: Probability = 0.1
    by: Literal["event", "time", "area"] = "event"

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        if self.by == "event":
            return events[rng.random(len(events)) >= self.p]
        if self.by == "time":
            duration = events.duration_us + 1  # the last microsecond too
            length = self.p * duration
            start = rng.random() * (duration - length)
            since = events.t - events.t[:1]
            return events[(since < start) | (since >= start + length)]
        height, width = (round(side * self.p**0.5) for side in sensor_size)
        top, left = rng.integers(sensor_size[0] - height + 1), rng.integers(sensor_size[1] - width + 1)
        y, x = events.y.astype(np.int32) - top, events.x.astype(np.int32) - left
        return events[~((x >= 0) & (x < width) & (y >= 0) & (y < height))]


@dataclass(frozen=True)
class SpatialJitter(Transform):
    """Moves every event by a rounded normal deviate in x and in y; drops those that leave the sensor.

    Args:
        std: in pixels.
    """

    name: ClassVar[str] = "spatial_jitter"
    moves_pixels: ClassVar[bool] = False
    std: Annotated[float, Range(ge=0.0)] = 1.0

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        moves = np.clip(np.rint(rng.normal(0.0, self.std, (2, len(events)))), -(1 << 20), 1 << 20).astype(np.int64)
        x, y = events.x + moves[0], events.y + moves[1]
        keep = (x >= 0) & (x < sensor_size[1]) & (y >= 0) & (y < sensor_size[0])
        return events[keep].replace(x=x[keep].astype(np.uint16), y=y[keep].astype(np.uint16))


@dataclass(frozen=True)
class TimeJitter(Transform):
    """Moves every event by a rounded normal deviate in time, and sorts them again.

    Args:
        std_us: in microseconds.
    """

    name: ClassVar[str] = "time_jitter"
    moves_pixels: ClassVar[bool] = False
    std_us: Annotated[float, Range(ge=0.0)] = 1000.0

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        moves = np.clip(np.rint(rng.normal(0.0, self.std_us, len(events))), -(1 << 60), 1 << 60)
        return in_order(events.replace(t=events.t + moves.astype(np.int64)))


@dataclass(frozen=True)
class Denoise(Transform):
    """Background activity filter: keeps an event if one of its 8 neighbours had one within the window before it.

    Source: Delbrück, Frame-free dynamic digital vision (Symposium on Secure-Life Electronics 2008).

    Args:
        window_us: how old the neighbour's event may be.
    """

    name: ClassVar[str] = "denoise"
    moves_pixels: ClassVar[bool] = False
    window_us: Length = 10_000

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        check_inside(events, sensor_size)
        height, width = sensor_size[0] + 2, sensor_size[1] + 2  # a margin, so that rows do not touch
        last = np.full(height * width, -self.window_us - 1, np.int64)
        keep = np.zeros(len(events), bool)
        for part in _chunks(len(events)):
            some = events[part]
            pixel = (some.y.astype(np.int64) + 1) * width + some.x + 1
            keep[part] = self._near(pixel, some.t - events.t[0], last, width)
        return events[keep]

    def _near(self, pixel: np.ndarray, t: np.ndarray, last: np.ndarray, width: int) -> np.ndarray:
        """Which of a few events stay; `last` has the time of each pixel's last event before them, and is moved on."""
        count = len(pixel)
        order = np.argsort(pixel, kind="stable")
        key = pixel[order] * count + order  # by pixel, then by position in time
        keep = np.zeros(count, bool)
        for shift in (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1):
            before = np.searchsorted(key, (pixel + shift) * count + np.arange(count)) - 1
            source = order[before]  # -1 wraps around, to a pixel that differs
            is_here = (before >= 0) & (pixel[source] == pixel + shift)
            keep |= t - np.where(is_here, t[source], last[pixel + shift]) <= self.window_us
        last[pixel[order]] = t[order]  # of several events of a pixel the last one stays
        return keep


@dataclass(frozen=True)
class Refractory(Transform):
    """Drops the events of a pixel during a refractory period after each event that is kept.

    Args:
        delay_us: how long.
    """

    name: ClassVar[str] = "refractory"
    moves_pixels: ClassVar[bool] = False
    delay_us: Length = 1_000

    def __call__(self, events: Events, sensor_size: Sensor, rng: Rng) -> Events:
        check_inside(events, sensor_size)
        num_pixels = sensor_size[0] * sensor_size[1]
        if events.duration_us + self.delay_us >= (1 << 62) // num_pixels:
            raise DatasetError(f"refractory: the recording of {events.duration_us} µs is too long; look at its times")
        free = np.zeros(num_pixels, np.int64)
        keep = np.zeros(len(events), bool)
        for part in _chunks(len(events)):
            some = events[part]
            pixel = some.y.astype(np.int64) * sensor_size[1] + some.x
            keep[part] = self._sighted(pixel, some.t - events.t[0], free)
        return events[keep]

    def _sighted(self, pixel: np.ndarray, t: np.ndarray, free: np.ndarray) -> np.ndarray:
        """Which of a few events stay; `free` says from when on each pixel sees again, and is moved on."""
        order = np.argsort(pixel, kind="stable")
        pixel, t = pixel[order], t[order]
        span = int(t.max()) + self.delay_us + 1
        key = pixel * span + t
        here = pixel[np.flatnonzero(np.diff(pixel, prepend=-1))]
        now = np.searchsorted(key, here * span + np.minimum(free[here], span - 1))  # the first that each pixel sees
        keep = np.zeros(len(pixel), bool)
        while True:  # one round per event that stays in the busiest pixel
            inside = now < len(pixel)
            now, here = now[inside], here[inside]
            is_same = pixel[now] == here
            now, here = now[is_same], here[is_same]
            if not len(now):
                break
            keep[order[now]] = True
            free[here] = t[now] + self.delay_us
            now = np.searchsorted(key, key[now] + self.delay_us)
        return keep


@dataclass(frozen=True)
class RandomTemporalDelete(Transform):
    """Keep a random choice of steps, in their order.

    Args:
        num_steps: how many; a sequence that has fewer is left as it is.
    """

    name: ClassVar[str] = "random_temporal_delete"
    moves_pixels: ClassVar[bool] = False
    level: ClassVar[Literal["events", "frames", "batch"]] = "frames"
    num_steps: Length = 8

    def __call__(self, frames: np.ndarray, rng: Rng) -> np.ndarray:
        if len(frames) <= self.num_steps:
            return frames
        return frames[np.sort(rng.choice(len(frames), self.num_steps, replace=False))]


@dataclass(frozen=True)
class EventCutMix(CutMix, Transform):
    """A box of every sample is replaced by that of another one, over all steps; labels mix by area.

    Source: Yun et al., CutMix (ICCV 2019); for events Li et al., Neuromorphic Data Augmentation (ECCV 2022).

    Args:
        alpha: of the Beta distribution.
        p: probability that a batch is mixed at all.
    """

    name: ClassVar[str] = "event_cutmix"
    level: ClassVar[Literal["events", "frames", "batch"]] = "batch"
