"""Prophesee and ATIS `.dat`: 8 bytes an event, little-endian.

Lines that begin with `%`; when there are any, one byte event type and one byte event size follow. Then pairs of uint32:
time in µs (a counter of 32 bits, unwrapped here) and an address.

version 2 (the header says `Version 2`)    x bits 0 .. 13,  y bits 14 .. 27,  p bit 28
before (ATIS; NAV Gesture)                 x bits 0 .. 8,   y bits 9 .. 16,   p bit 17

Source: Prophesee's page on the DAT format; the readers of the NAV Gesture data.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from pathlib import Path

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events, unwrapped
from spikecore_datasets_dvs.formats.binary import Columns, chunks, header, num_records, opened
from spikecore_datasets_dvs.reading import Reading, Stated

TYPES = (0, 12)
"""Event types that hold changes of brightness (TD, CD)."""


SIDE = re.compile(rb"\s*(height|width)\s+([0-9]{1,5})\s*", re.IGNORECASE)


def stated(path: Path, reading: Reading) -> Stated:
    """The size of the sensor is in the header's lines `Height` and `Width`."""
    with opened(path) as file:
        lines = header(file, b"%", path)
    sides = {match[1].lower(): int(match[2]) for match in map(SIDE.fullmatch, lines) if match}
    variant = f"DAT, version {'2' if _is_new(lines) else '1'}" if lines else "DAT without a header (ATIS)"
    if sides.keys() == {b"height", b"width"}:
        return Stated(variant, (sides[b"height"], sides[b"width"]), "the header (Height, Width)")
    return Stated(variant)


def _is_new(lines: list[bytes]) -> bool:
    return any(re.match(rb"\s*version\s+[2-9]", line, re.IGNORECASE) for line in lines)


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a file.

    Raises:
        DatasetError: it is damaged, or its addresses are those of version 2 and its header does not say so.
    """
    with opened(path) as file:
        lines = header(file, b"%", path)
        if lines:
            marks = file.read(2)
            if len(marks) < 2:
                raise DatasetError(f"{path}: ends behind its header; event type and size are missing")
            if marks[0] not in TYPES or marks[1] != 8:
                raise DatasetError(
                    f"{path}: holds events of type {marks[0]} with {marks[1]} bytes; type 0 or 12 with 8 is expected"
                )
        x_bits, y_bits = (14, 14) if _is_new(lines) else (9, 8)
        count = num_records(file, 8, path)
        columns = Columns(count)
        last = None
        num_wide = 0
        for pairs in chunks(file, "<u4", count, path, 2):
            t, address = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.uint32)
            t = unwrapped(t, 1 << 32, int(t[0]) if last is None else last)
            last = int(t[-1])
            x, y = address & (1 << x_bits) - 1, address >> x_bits & (1 << y_bits) - 1
            columns.put(t, x, y, address >> x_bits + y_bits & 1)
            num_wide += int(np.count_nonzero(address >> x_bits + y_bits + 1))
    if 2 * num_wide > count:
        said = "says version 2" if _is_new(lines) else "does not say version 2"
        advice = "is it damaged?" if _is_new(lines) else "where it is of version 2, add the line '% Version 2' in front"
        raise DatasetError(
            f"{path}: its header {said}, whose addresses have {x_bits + y_bits + 1} bits, and {num_wide} of {count} "
            f"addresses have more: {advice}"
        )
    return columns.events()


def read_window(path: Path, start_us: int, stop_us: int) -> Events:
    """The events with start <= t < stop, without reading the others: the records are in order of time.

    Args:
        path: of a file of version 2, shorter than the 71 minutes of its counter.
        start_us, stop_us: on the clock of the file.

    Raises:
        DatasetError: the file is damaged, or its times are not in order.
    """
    with opened(path) as file:
        lines = header(file, b"%", path)
        marks = file.read(2) if lines else b""
        if len(marks) < 2 or marks[0] not in TYPES or marks[1] != 8 or not _is_new(lines):
            raise DatasetError(f"{path}: is no DAT file of version 2 with events of 8 bytes")
        count, start = num_records(file, 8, path), file.tell()

        def time(number: int) -> int:
            file.seek(start + 8 * number)
            return int.from_bytes(file.read(4), "little")

        first = bisect_left(range(count), start_us, key=time)
        stop = bisect_left(range(count), stop_us, first, key=time)
        file.seek(start + 8 * first)
        pairs = np.frombuffer(file.read(8 * (stop - first)), "<u4").reshape(-1, 2)
    t, address = pairs[:, 0].astype(np.int64), pairs[:, 1]
    if len(t) and (not (np.diff(t) >= 0).all() or t[0] < start_us or t[-1] >= stop_us):
        raise DatasetError(f"{path}: its times are not in order between {start_us} and {stop_us} µs: it is damaged")
    x, y, p = address & 0x3FFF, address >> 14 & 0x3FFF, address >> 28 & 1
    return Events(t, x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))
