"""Prophesee `.raw`: EVT 2.0, 2.1 and 3.0, little-endian. Lines that begin with `%` say which of them it is; where
one is `% end`, the words follow it. EVT 2.1 has a module of its own.

EVT 2.0, 32-bit words; bits 28 .. 31 are the type
    0, 1   event with p = type: bits 22 .. 27 low 6 bits of the time, 11 .. 21 x, 0 .. 10 y
    8      bits 0 .. 27: the time's other bits
EVT 3.0, 16-bit words; bits 12 .. 15 are the type
    0      bits 0 .. 10: y from here on
    2      event at x = bits 0 .. 10, p = bit 11
    3      vectors begin at x = bits 0 .. 10, with p = bit 11
    4, 5   vector of 12 or 8 places: an event wherever a bit is set; the next vector begins behind it
    6, 8   low, high 12 bits of the time

Other types (triggers and the like) are passed over, and so are events before the first word of high time bits, whose
time nobody knows. A vector without a word that says where it begins holds no events. The time counters (34 and 24 bits)
are unwrapped.

Source: Prophesee's pages on the EVT 2.0 and EVT 3.0 formats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats import evt21
from spikecore_datasets_dvs.formats.binary import Columns, check_timed, chunks, header, last_marked, num_records, opened
from spikecore_datasets_dvs.formats.evt_words import check_version
from spikecore_datasets_dvs.reading import Reading, Stated

VERSION = re.compile(rb"^\s*(?:evt\s+|format\s+evt)([0-9][0-9.]*)", re.MULTILINE)
VERSIONS = {
    b"2": "2.0",
    b"2.0": "2.0",
    b"20": "2.0",
    b"2.1": "2.1",
    b"21": "2.1",
    b"3": "3.0",
    b"3.0": "3.0",
    b"30": "3.0",
}
"""As the header writes it → version."""
GEOMETRY = re.compile(rb"^\s*geometry\s+([0-9]{1,5})x([0-9]{1,5})\s*$", re.MULTILINE | re.IGNORECASE)
SIDE = re.compile(rb"\b(height|width)[ =]+([0-9]{1,5})\b", re.IGNORECASE)
BITS = np.array([bin(value).count("1") for value in range(1 << 12)])
"""Bits that are set, by value."""


def stated(path: Path, reading: Reading) -> Stated:
    """The version, and the size of the sensor from the lines `geometry` or `format`."""
    with opened(path) as file:
        lines = header(file, b"%", path, b"end")
    variant = f"EVT {_version(lines, path)}"
    text = b"\n".join(lines)
    if match := GEOMETRY.search(text):
        return Stated(variant, (int(match[2]), int(match[1])), "the header (geometry)")
    sides = {match[1].lower(): int(match[2]) for match in SIDE.finditer(text)}
    if sides.keys() == {b"height", b"width"}:
        return Stated(variant, (sides[b"height"], sides[b"width"]), "the header (height, width)")
    return Stated(variant)


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a file."""
    with opened(path) as file:
        lines = header(file, b"%", path, b"end")
        version = _version(lines, path)
        check_version(file, version, path)
        if version == "2.0":
            return _read2(file, path)
        if version == "2.1":
            is_legacy = b"endianness=legacy" in b" ".join(lines).lower().replace(b" ", b"")
            return evt21.decode(file, path, is_legacy)
        return _read3(file, path)


def _version(lines: list[bytes], path: Path) -> str:
    """`2.0`, `2.1` or `3.0`, as one line or several that agree say.

    Raises:
        DatasetError: the header names none, several, or another one.
    """
    text = b"\n".join(lines).lower()
    versions = {VERSIONS.get(match[1], match[1].decode()) for match in VERSION.finditer(text)}
    if len(versions) == 1 and versions <= set(VERSIONS.values()):
        return versions.pop()
    names = f"names EVT {' and '.join(sorted(versions))}" if versions else "names no version"
    raise DatasetError(
        f"{path}: its header {names}; EVT 2.0, 2.1 and 3.0 are read: convert it with the camera's own tools"
    )


def _read2(file, path: Path) -> Events:
    count = num_records(file, 4, path)
    columns = Columns(count)
    high, known, num_events = 0, False, 0
    for words in chunks(file, "<u4", count, path):
        kind = words >> 28
        num_events += int(np.count_nonzero(kind <= 1))
        is_high = kind == 8
        times, high, known = last_marked(is_high, (words & 0x0FFFFFFF).astype(np.int64), high, known, 1 << 28)
        keep = (kind <= 1) & (times >= 0)
        words, times = words[keep], times[keep]
        columns.put(times << 6 | words >> 22 & 63, words >> 11 & 0x7FF, words & 0x7FF, words >> 28)
    check_timed(columns.count, num_events, path)
    return columns.events()


@dataclass
class _State:
    """What a chunk of EVT 3.0 leaves to the next."""

    high: int = 0
    known: bool = False
    low: int = 0
    y: int = 0
    base: int = -1
    p: int = 0
    num_untimed: int = 0


def _read3(file, path: Path) -> Events:
    count, start = num_records(file, 2, path), file.tell()
    columns = Columns(sum(_num_events(words) for words in chunks(file, "<u2", count, path)))
    file.seek(start)
    state = _State()
    for words in chunks(file, "<u2", count, path, most=1 << 16):
        part = _decode3(words.astype(np.int64), state, path)
        columns.put(part.t, part.x, part.y, part.p)
    check_timed(columns.count, columns.count + state.num_untimed, path)
    return columns.events()


def _num_events(words: np.ndarray) -> int:
    """The most events that these words can hold."""
    counts = np.bincount(words >> 12, minlength=16)
    bits = BITS[words[(words >> 12 == 4) | (words >> 12 == 5)] & 0xFFF]
    return int(counts[2] + bits.sum())


def _decode3(words: np.ndarray, state: _State, path: Path) -> Events:
    kind, value = words >> 12, words & 0xFFF
    high, state.high, state.known = last_marked(kind == 8, value, state.high, state.known, 1 << 12)
    low = _held(kind == 6, value, state.low)
    y = _held(kind == 0, value & 0x7FF, state.y)
    base, p = _held(kind == 3, value & 0x7FF, state.base), _held(kind == 3, value >> 11, state.p)
    # Vectors move the base: the places passed since the word that set it.
    moved = np.cumsum(np.where(kind == 4, 12, np.where(kind == 5, 8, 0)))
    since = _held(kind == 3, moved, 0)
    width = np.where(kind == 4, 12, 8)
    start = np.where(base < 0, -1, base + moved - since - width)
    if len(words):
        state.low, state.y, state.p = int(low[-1]), int(y[-1]), int(p[-1])
        state.base = int(base[-1] + moved[-1] - since[-1]) if base[-1] >= 0 else -1
    if len(words) and high[0] < 0:
        state.num_untimed += _num_events(words[high < 0])
    single = np.flatnonzero((kind == 2) & (high >= 0))
    vector = np.flatnonzero(((kind == 4) | (kind == 5)) & (high >= 0) & (start >= 0))
    bits = (value[vector, None] >> np.arange(12) & 1).astype(bool) & (np.arange(12) < width[vector, None])
    which, place = np.nonzero(bits)
    order = np.argsort(np.concatenate([single, vector[which]]), kind="stable")
    at = np.concatenate([single, vector[which]])[order]
    x = np.concatenate([value[single] & 0x7FF, start[vector[which]] + place])[order]
    polarity = np.concatenate([value[single] >> 11, p[vector[which]]])[order]
    if len(x) and int(x.max()) > 0xFFFF:
        raise DatasetError(f"{path}: vectors run to x = {int(x.max())}: the file is damaged")
    t = high[at] << 12 | low[at]
    return Events(t, x.astype(np.uint16), y[at].astype(np.uint16), polarity.astype(np.uint8))


def _held(marks: np.ndarray, values: np.ndarray, before: int) -> np.ndarray:
    """At each place the last value that was marked, `before` ahead of the first."""
    return np.concatenate([[before], values[marks]])[np.cumsum(marks)]
