"""EVT 2.1: 64-bit words, little-endian; bits 60 .. 63 are the type.

0, 1   events with p = type: bits 54 .. 59 low 6 bits of the time, 43 .. 53 x of the first, 32 .. 42 y; an event at
       x + i wherever bit i of 0 .. 31 is set
8      bits 32 .. 59: the time's other bits
10, 14, 15   triggers and the like, passed over

Older sensors (IMX636) send the two halves of a word in the other order; the header then says `endianness=legacy`.

Source: Prophesee's page on the EVT 2.1 format.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats.binary import Columns, check_timed, chunks, last_marked, num_records

KNOWN = np.zeros(16, bool)
KNOWN[[0, 1, 8, 10, 14, 15]] = True
SURELY = 0.95
"""Share of steps between times that do not go back."""
PLACES = np.arange(32, dtype=np.uint32)


def decode(file: BinaryIO, path: Path, is_legacy: bool) -> Events:
    """The events of a file that stands behind its header.

    Args:
        file: see above.
        path: of it, for errors.
        is_legacy: the halves of a word are exchanged.

    Raises:
        DatasetError: it is cut short, or most words are of no known type.
    """
    count, start = num_records(file, 8, path), file.tell()
    low, high = (1, 0) if is_legacy else (0, 1)
    capacity = num_strange = 0
    for number, words in enumerate(chunks(file, "<u4", count, path, 2)):
        if number == 0 and not _are_times(words[:, high]) and _are_times(words[:, low]):
            raise DatasetError(
                f"{path}: the halves of its words stand the other way round than the header says: the line format "
                f"should {'not ' if is_legacy else ''}have endianness=legacy"
            )
        kind = words[:, high] >> 28
        num_strange += int((~KNOWN[kind]).sum())
        capacity += int(_bits(words[kind <= 1, low]).sum())
    if 2 * num_strange > count:
        raise DatasetError(f"{path}: {num_strange} of {count} words are of no type of EVT 2.1: it is damaged")
    file.seek(start)
    columns = Columns(capacity)
    time_high, known = 0, False
    for words in chunks(file, "<u4", count, path, 2, most=1 << 15):
        upper, valid = words[:, high], words[:, low]
        kind = upper >> 28
        times, time_high, known = last_marked(
            kind == 8, (upper & 0x0FFFFFFF).astype(np.int64), time_high, known, 1 << 28
        )
        keep = np.flatnonzero((kind <= 1) & (times >= 0))
        which, place = np.nonzero(valid[keep, None] >> PLACES & 1)
        word = upper[keep][which]
        columns.put(times[keep][which] << 6 | word >> 22 & 63, (word >> 11 & 0x7FF) + place, word & 0x7FF, word >> 28)
    check_timed(columns.count, capacity, path)
    return columns.events()


def _are_times(words: np.ndarray) -> bool:
    """Whether those that say they are times rise, as times do and other numbers do not."""
    times = (words[words >> 28 == 8] & 0x0FFFFFFF).astype(np.int64)
    steps = np.diff(times)
    return bool((steps > 0).any()) and float((steps >= 0).mean()) > SURELY


def _bits(words: np.ndarray) -> np.ndarray:
    """How many bits are set in each word of 32."""
    counts = words - (words >> 1 & 0x55555555)
    counts = (counts & 0x33333333) + (counts >> 2 & 0x33333333)
    counts = counts + (counts >> 4) & 0x0F0F0F0F
    return (counts * np.uint32(0x01010101)) >> 24
