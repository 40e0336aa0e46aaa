"""Event Stream `.es`, version 2: events of 5 bytes, and single bytes between them.

header, 20 bytes   `Event Stream`, version (3 bytes), type (1: DVS, 2: ATIS), uint16 W, uint16 H, little-endian
event              time since the event before, with the polarity; uint16 x; uint16 y

type   first byte                 passed time        a byte in its place
DVS    t t t t t t t p            t                  0xFF: 127 µs pass; 0xFE: nothing (it puts a reader back in step)
ATIS   t t t t t t p c            t                  0xFC + n: n · 63 µs pass (n = 0 .. 3)

c = 1 marks a measurement of brightness by an ATIS, which is no event. Rows count from below: so does the reader of the
format's own authors, faery, to which this one is equal (tests/test_other_readers.py).

Source: the specification of Event Stream 2.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats.binary import Columns, left, opened
from spikecore_datasets_dvs.reading import Reading, Sensor, Stated

HEADER = struct.Struct("<12s3BBHH")
MAGIC = b"Event Stream"
DVS, ATIS = 1, 2
TYPES = {0: "generic", DVS: "DVS", ATIS: "ATIS", 3: "display", 4: "colour"}
EVENT = 5
PIECE = 1 << 17
"""Bytes taken apart at a time."""


def stated(path: Path, reading: Reading) -> Stated:
    """The header states the size of the sensor."""
    with opened(path) as file:
        kind, size = _header(file, path)
    return Stated(f"Event Stream 2, {TYPES[kind]}", size, "the header")


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a file."""
    with opened(path) as file:
        kind, size = _header(file, path)
        columns = Columns(left(file) // EVENT)
        time = 0
        for raw, starts in _pieces(file, kind, path):
            time = _decode(raw, starts, kind, time, columns)
    events = columns.events()
    if len(events) and (int(events.x.max()) >= size[1] or int(events.y.max()) >= size[0]):
        raise DatasetError(
            f"{path}: an event lies outside the sensor that its header states, H, W = {size}: it is damaged"
        )
    return events.replace(y=(size[0] - 1 - events.y).astype(np.uint16))


def _header(file: BinaryIO, path: Path) -> tuple[int, Sensor]:
    head = file.read(HEADER.size)
    if not head.startswith(MAGIC):
        raise DatasetError(f"{path}: is no Event Stream: it begins with {head[:12]!r}")
    if len(head) < HEADER.size:
        raise DatasetError(f"{path}: its header is cut short")
    _, major, minor, patch, kind, width, height = HEADER.unpack(head)
    if major != 2 or kind not in (DVS, ATIS):
        raise DatasetError(
            f"{path}: is Event Stream {major}.{minor}.{patch} of type {TYPES.get(kind, kind)}; version 2 of type DVS "
            "or ATIS is read"
        )
    if not (width and height):
        raise DatasetError(f"{path}: its header states a sensor of H, W = {(height, width)}: it is damaged")
    return kind, (height, width)


def _pieces(file: BinaryIO, kind: int, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Bytes, and the places where events or single bytes begin in them, in order."""
    rest = b""
    is_single = np.zeros(256, bool)
    is_single[0xFE if kind == DVS else 0xFC :] = True
    while piece := file.read(PIECE):
        raw = np.frombuffer(rest + piece, np.uint8)
        starts, end = _starts(is_single[raw])
        yield raw, starts
        rest = raw[end:].tobytes()
    if rest:
        raise DatasetError(f"{path}: the last event has {len(rest)} of {EVENT} bytes: the file is cut short")


def _starts(is_single: np.ndarray) -> tuple[np.ndarray, int]:
    """Where records begin, if one begins at 0 and a place that is single has one byte, and any other five.

    All places lead to a next one; following all of them at once, twice as far each time, takes log₂ steps.

    Returns:
        The places of whole records, and where the first that is not whole begins.
    """
    count = len(is_single)
    step = np.where(is_single, 1, EVENT).astype(np.int32)
    onward = np.minimum(np.arange(count, dtype=np.int32) + step, count)
    onward = np.append(onward, np.int32(count))  # the end leads to itself
    is_reached = np.zeros(count + 1, bool)
    is_reached[0] = True
    far = onward
    for _ in range(max(count, 1).bit_length()):
        is_reached[far[is_reached]] = True
        far = far[far]
    starts = np.flatnonzero(is_reached[:count])
    is_cut = len(starts) and starts[-1] + step[starts[-1]] > count
    return (starts[:-1], int(starts[-1])) if is_cut else (starts, count)


def _decode(raw: np.ndarray, starts: np.ndarray, kind: int, time: int, columns: Columns) -> int:
    """Append the events that begin at these places; returns the time of the last of them."""
    first = raw[starts]
    if kind == DVS:
        is_event = first < 0xFE
        passed = np.where(is_event, first >> 1, np.where(first == 0xFF, 127, 0))
        p, is_kept = first & 1, is_event
    else:
        is_event = first < 0xFC
        passed = np.where(is_event, first >> 2, (first & 3) * 63)
        p, is_kept = first >> 1 & 1, is_event & (first & 1 == 0)
    times = time + np.cumsum(passed, dtype=np.int64)
    at = starts[is_kept]
    x, y = (raw[at + low] | raw[at + low + 1].astype(np.uint16) << 8 for low in (1, 3))
    columns.put(times[is_kept], x, y, p[is_kept])
    return int(times[-1]) if len(times) else time
