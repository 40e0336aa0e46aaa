"""One recording, many samples: windows of equal duration or of equal count, and equal parts.

by_time         window i: t_first + i · stride <= t < … + duration;   stride = duration - overlap
by_count        window i: events i · stride … i · stride + count - 1;  stride = count - overlap
by_time_bins    num_bins windows of ⌊(t_last - t_first) / num_bins⌋ · (1 + overlap);  stride = window · (1 - overlap)
by_count_bins   num_bins windows of ⌊⌊N / num_bins⌋ · (1 + overlap)⌋;  stride = ⌊window · (1 - overlap)⌋

How many windows: ⌊(span - window) / stride⌋ + 1; with `include_incomplete` ⌈ … ⌉, where the last one may be cut off.
All slices of a recording are in one split: windows that overlap would show the test split to those who train.

Parity: Tonic's slicers (tests/test_slices.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from spikecore.errors import DatasetError, OptionError
from spikecore.interfaces import Range
from spikecore_datasets_dvs.events import Events

Count = Annotated[int, Range(ge=1)]
Overlap = Annotated[int, Range(ge=0)]
Share = Annotated[float, Range(ge=0.0, lt=1.0)]
Bounds = np.ndarray
MOST_SLICES = 1_000_000


class Slices:
    """Base of all: called with events, gives indices `[num_slices, 2]`: first event, and first event behind."""

    name: ClassVar[str]

    def __call__(self, events: Events) -> Bounds:
        raise NotImplementedError(f"{type(self).__name__} declares no slices")


def _starts(span: int, window: int, stride: int, include_incomplete: bool) -> np.ndarray:
    """Where windows begin, from 0 on."""
    rest = span - window
    number = (-(-rest // stride) if include_incomplete else rest // stride) + 1
    if number > MOST_SLICES:
        raise DatasetError(f"a recording makes {number} slices, more than {MOST_SLICES}: choose larger ones")
    return np.arange(max(number, 0), dtype=np.int64) * stride


def _check_stride(window: int, overlap: int, what: str) -> int:
    if overlap >= window:
        raise OptionError(f"the overlap of {overlap} must be smaller than {what} = {window}")
    return window - overlap


@dataclass(frozen=True)
class ByTime(Slices):
    """Windows of equal duration.

    Args:
        duration_us: of a window.
        overlap_us: what it shares with the next one.
        include_incomplete: the last window may be shorter.
    """

    name: ClassVar[str] = "by_time"
    duration_us: Count = 100_000
    overlap_us: Overlap = 0
    include_incomplete: bool = False

    def __post_init__(self) -> None:
        _check_stride(self.duration_us, self.overlap_us, "duration_us")

    def __call__(self, events: Events) -> Bounds:
        if not len(events):
            return np.empty((0, 2), np.int64)
        stride = self.duration_us - self.overlap_us
        starts = _starts(events.duration_us, self.duration_us, stride, self.include_incomplete) + int(events.t[0])
        return np.stack([np.searchsorted(events.t, starts), np.searchsorted(events.t, starts + self.duration_us)], 1)


@dataclass(frozen=True)
class ByCount(Slices):
    """Windows of an equal number of events.

    Args:
        count: of events in a window.
        overlap: how many it shares with the next one.
        include_incomplete: the last window may hold fewer.
    """

    name: ClassVar[str] = "by_count"
    count: Count = 10_000
    overlap: Overlap = 0
    include_incomplete: bool = False

    def __post_init__(self) -> None:
        _check_stride(self.count, self.overlap, "count")

    def __call__(self, events: Events) -> Bounds:
        if not len(events):
            return np.empty((0, 2), np.int64)
        starts = _starts(len(events), self.count, self.count - self.overlap, self.include_incomplete)
        return np.stack([starts, np.minimum(starts + self.count, len(events))], 1)


@dataclass(frozen=True)
class ByTimeBins(Slices):
    """A fixed number of windows of equal duration.

    Args:
        num_bins: how many.
        overlap: share of a window by which it reaches into the next one.
    """

    name: ClassVar[str] = "by_time_bins"
    num_bins: Count = 10
    overlap: Share = 0.0

    def __call__(self, events: Events) -> Bounds:
        if not len(events):
            return np.zeros((self.num_bins, 2), np.int64)
        window = events.duration_us // self.num_bins * (1 + self.overlap)
        starts = np.arange(self.num_bins) * (window * (1 - self.overlap)) + int(events.t[0])
        return np.stack([np.searchsorted(events.t, starts), np.searchsorted(events.t, starts + window)], 1)


@dataclass(frozen=True)
class ByCountBins(Slices):
    """A fixed number of windows of an equal number of events.

    Args:
        num_bins: how many.
        overlap: share of a window by which it reaches into the next one.
    """

    name: ClassVar[str] = "by_count_bins"
    num_bins: Count = 10
    overlap: Share = 0.0

    def __call__(self, events: Events) -> Bounds:
        window = int(len(events) // self.num_bins * (1 + self.overlap))
        starts = np.arange(self.num_bins, dtype=np.int64) * int(window * (1 - self.overlap))
        return np.stack([starts, np.minimum(starts + window, len(events))], 1)
