"""AEDAT 3.1: cAER's recordings (DVS128 Gesture).

Lines that begin with `#`, among them `#Format: RAW`, the last one `#!END-HEADER`; then packets, all little-endian:

header, 28 bytes   int16 type, int16 source, int32 event size, time offset, overflow, capacity, number, valid
event, 8 bytes     uint32: bit 0 valid, bit 1 p, bits 2 .. 16 y, bits 17 .. 31 x;   int32 time in µs

t = overflow · 2^31 + time.  Only packets of type 1 (polarity) are read, and of them only valid events.

Source: the AEDAT file formats page of iniVation.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats.binary import CHUNK, Columns, left, opened
from spikecore_datasets_dvs.reading import Reading, Stated

HEADER = struct.Struct("<hhiiiiii")
POLARITY = 1
END = b"!END-HEADER"
SOURCE = re.compile(rb"#\s*Source\s+[0-9]+\s*:\s*(\S+)", re.IGNORECASE)
DEVICES = {
    "DVS128": (128, 128),
    "DAVIS240A": (180, 240),
    "DAVIS240B": (180, 240),
    "DAVIS240C": (180, 240),
    "DAVIS346": (260, 346),
    "DAVIS346A": (260, 346),
    "DAVIS346B": (260, 346),
    "DAVIS640": (480, 640),
}
"""`(H, W)` by the name of the device."""
FORMAT = re.compile(rb"#\s*Format:\s*(\S*)", re.IGNORECASE)


class _Packet(NamedTuple):
    at: int
    count: int
    overflow: int


def stated(path: Path, reading: Reading) -> Stated:
    """The size of the sensor is that of the device in the header's line `Source`."""
    with opened(path) as file:
        lines = _skip_header(file, path)
    for line in lines:
        if match := SOURCE.match(line):
            name = match[1].decode("latin-1")
            return Stated("AEDAT 3.1", DEVICES.get(name.upper()), f"the header (Source: {name})")
    return Stated("AEDAT 3.1")


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a file."""
    with opened(path) as file:
        _skip_header(file, path)
        packets = list(_packets(file, path))
        columns = Columns(sum(packet.count for packet in packets))
        for group in _groups(packets):
            _decode(file, group, columns, path)
    return columns.events()


def _skip_header(file: BinaryIO, path: Path) -> list[bytes]:
    """The lines of the header; the file stands behind them."""
    lines = 0
    seen: list[bytes] = []
    while True:
        line = file.readline(1 << 16)
        if not line.startswith(b"#") or (not lines and not line.startswith(b"#!AER-DAT3.1")):
            what = "has no end of header" if lines else "is not AEDAT 3.1"
            raise DatasetError(f"{path}: {what}: line {lines + 1} is {line[:20]!r}")
        lines += 1
        if (match := FORMAT.match(line)) and match[1].upper() != b"RAW":
            raise DatasetError(
                f"{path}: its packets have the format {match[1].decode('latin-1')!r}; RAW is expected: write it anew "
                "as RAW with the software that recorded it"
            )
        if line[1:].strip() == END:
            return seen
        seen.append(line)
        if lines > 10_000:
            raise DatasetError(f"{path}: its header has no end")


def _packets(file: BinaryIO, path: Path) -> Iterator[_Packet]:
    """The polarity packets; every one is held against what is left of the file."""
    at, rest = file.tell(), left(file)
    while rest:
        head = file.read(HEADER.size)
        if len(head) < HEADER.size:
            raise DatasetError(f"{path}: the packet header at byte {at} is cut short")
        kind, _, size, _, overflow, capacity, number, _ = HEADER.unpack(head)
        length = capacity * size
        if size <= 0 or not 0 <= number <= capacity or overflow < 0 or length > rest - HEADER.size:
            raise DatasetError(
                f"{path}: the packet at byte {at} is cut short or damaged: it names {number} of {capacity} events "
                f"of {size} bytes, and {rest - HEADER.size} bytes follow"
            )
        if kind == POLARITY:
            if size != 8:
                raise DatasetError(f"{path}: the packet at byte {at} has polarity events of {size} bytes instead of 8")
            yield _Packet(at + HEADER.size, number, overflow)
        at += HEADER.size + length
        rest -= HEADER.size + length
        file.seek(at)


def _groups(packets: list[_Packet]) -> Iterator[list[_Packet]]:
    """Neighbours, so that small packets are decoded together and a chunk stays small."""
    group: list[_Packet] = []
    count = 0
    for packet in packets:
        for start in range(0, packet.count, CHUNK):
            part = _Packet(packet.at + 8 * start, min(CHUNK, packet.count - start), packet.overflow)
            group.append(part)
            count += part.count
            if count >= CHUNK:
                yield group
                group, count = [], 0
    if group:
        yield group


def _decode(file: BinaryIO, group: list[_Packet], columns: Columns, path: Path) -> None:
    raw = np.empty((sum(packet.count for packet in group), 2), "<u4")
    view, at = memoryview(raw).cast("B"), 0
    for packet in group:
        file.seek(packet.at)
        if file.readinto(view[at : at + 8 * packet.count]) != 8 * packet.count:  # type: ignore[attr-defined]
            raise DatasetError(f"{path}: became shorter while it was read")
        at += 8 * packet.count
    data, time = raw[:, 0], raw[:, 1]
    high: np.ndarray | None = None
    if any(packet.overflow for packet in group):
        high = np.repeat([packet.overflow << 31 for packet in group], [packet.count for packet in group])
    if not np.bitwise_and.reduce(data) & 1:
        keep = (data & 1).astype(bool)
        data, time = data[keep], time[keep]
        high = high if high is None else high[keep]
    if np.bitwise_or.reduce(time) >> 31:
        raise DatasetError(f"{path}: a time is negative: the file is damaged")
    columns.put(time if high is None else time + high, data >> 17, data >> 2 & 0x7FFF, data >> 1 & 1)
