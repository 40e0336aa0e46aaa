"""ATIS 40-bit events (`.bin` of N-MNIST and N-Caltech101): five bytes each, no header.

byte 0: x    byte 1: y    byte 2, bit 7: p    the other 23 bits, big-endian: t in µs

An event with y = 240 marks an overflow of the time: it is no event, and 2^13 µs are added to all that follow. The
counter of 23 bits (8.39 s) is unwrapped besides: a fall by more than half of it is a turn. Events may change places
within 2^13 µs, as they do around a mark, and are sorted; a longer way back is an error.

Source: Orchard et al., Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades (Frontiers in
Neuroscience 2015); the overflow rule is that of the readers published with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats.binary import Columns, chunks, num_records, opened
from spikecore_datasets_dvs.reading import Reading, Stated

OVERFLOW_Y = 240
OVERFLOW_US = 1 << 13
PERIOD_US = 1 << 23


def stated(path: Path, reading: Reading) -> Stated:
    """The file has no header."""
    return Stated("ATIS, 40 bits an event, without a header")


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a file."""
    with opened(path) as file:
        count = num_records(file, 5, path)
        columns = Columns(count)
        overflows = turns = 0
        last: int | None = None
        for raw in chunks(file, np.uint8, count, path, 5):
            x, y, high = raw[:, 0], raw[:, 1], raw[:, 2]
            t = _counter(raw)
            marks = y == OVERFLOW_Y
            if overflows or marks.any():
                late = t + (overflows + np.cumsum(marks, dtype=np.int64)) * OVERFLOW_US
                overflows += int(marks.sum())
                real = ~marks
                t, x, y, high = late[real], x[real], y[real], high[real]
            if len(t):
                counter, (t, turns) = t, _unwrapped(t, last, turns, path)
                last = int(counter[-1])
            columns.put(t, x, y, high >> 7)
    return columns.events()


def _counter(raw: np.ndarray) -> np.ndarray:
    """The 23 bits of the time of each record, int32; `raw` is `[n, 5]` without gaps."""
    last_four = np.ndarray(len(raw), ">u4", raw.data, offset=1, strides=raw.strides[:1])  # bytes 1 to 4 as one number
    counter = last_four.astype(np.uint32)
    counter &= PERIOD_US - 1
    return counter.view(np.int32)


def _unwrapped(t: np.ndarray, last: int | None, turns: int, path: Path) -> tuple[np.ndarray, int]:
    """Times with the turns of the counter, and how many there were; `last` is the value before, without turns."""
    first = int(t[0]) if last is None else last
    is_rising = first <= t[0] and bool((t[1:] >= t[:-1]).all())
    if not turns and is_rising and int(t[-1]) - first <= PERIOD_US - OVERFLOW_US:
        return t, 0  # the path of nearly all files: no differences are computed
    steps = np.diff(t, prepend=np.array([first], t.dtype))
    if not turns and steps.min() >= -OVERFLOW_US and steps.max() <= PERIOD_US - OVERFLOW_US:
        return t, 0
    back, ahead = steps < -OVERFLOW_US, steps > PERIOD_US - OVERFLOW_US  # ahead: back across the edge of a turn
    if (wrong := np.flatnonzero(back & (steps > -(PERIOD_US // 2)))).size:
        raise DatasetError(
            f"{path}: timestamps run backwards: by {-int(steps[wrong[0]])} µs to {int(t[wrong[0]])} µs; events in "
            "order of time are expected, or a counter that falls by most of its 2^23 µs: get the file again, or cut "
            "it there where two recordings stand in it"
        )
    counts = turns + np.cumsum(back, dtype=np.int64) - np.cumsum(ahead)
    return t + counts * PERIOD_US, int(counts[-1])
