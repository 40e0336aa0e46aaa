"""Whether the words of an EVT file are those of the version that its header names.

The three versions read each other's words without a complaint, as events in wrong places at wrong times. What tells
them apart is which types of words there are, at which width:

version   word      types
2.0       32 bits   0, 1, 8, 10, 14, 15 (and 2 .. 7 where the sensor measures brightness as well)
2.1       64 bits   the same in the upper half; the lower half is a mask, where any bits may be set
3.0       16 bits   0, 2 .. 8, 10, 14, 15

Source: Prophesee's pages on the three formats.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from spikecore.errors import DatasetError

SEEN = 1 << 20
"""Bytes at the beginning that are looked at."""
FEWEST = 16
"""Words of time, from which on their places are judged."""
STRANGE = 0.1
"""Share of words of no type, from which on they are of another version; 0 in sound files."""
OF_32 = np.isin(np.arange(16), (0, 1, 8, 10, 14, 15))
OF_16 = np.isin(np.arange(16), (0, 2, 3, 4, 5, 6, 7, 8, 10, 14, 15))
KNOWN = np.isin(np.arange(16), (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 14, 15))
"""Words of 32 bits of any sensor."""
TIME = 8


def check_version(file: BinaryIO, version: str, path: Path) -> None:
    """The first words are of this version; the file stands where it stood.

    Args:
        file: behind its header.
        version: `2.0`, `2.1` or `3.0`, as the header names it.
        path: of the file, for the error.

    Raises:
        DatasetError: they are of another one.
    """
    start = file.tell()
    raw = file.read(SEEN)
    file.seek(start)
    wide = np.frombuffer(raw[: len(raw) // 4 * 4], "<u4")
    narrow = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2") >> 12
    if not len(wide):
        return
    not_32, not_16 = float((~OF_32[wide >> 28]).mean()), float((~OF_16[narrow]).mean())
    fits = ""
    if version != "2.1" and _has_masks(wide):
        fits = "2.1"
    elif version == "3.0" and not_16 > STRANGE:
        fits = "2.0" if not_32 == 0 else "none of the three"
    elif version != "3.0" and not_32 > STRANGE and not_16 < STRANGE / 10:
        fits = "3.0"
    elif version == "2.0" and float((~KNOWN[wide >> 28]).mean()) > STRANGE:
        fits = "none of the three"
    elif version == "2.1" and not_32 == 0 and _has_times_everywhere(wide):
        fits = "2.0"
    if fits:
        raise DatasetError(
            f"{path}: its header names EVT {version}, and its words are those of {fits}: events would stand in wrong "
            "places. Correct the line '% evt …' of the header, or write the recording anew"
        )


def _times(words: np.ndarray) -> np.ndarray:
    return (words[words >> 28 == TIME] & 0x0FFFFFFF).astype(np.int64)


def _rise(times: np.ndarray) -> bool:
    """Whether they are times: these hardly ever go back, and other numbers do."""
    steps = np.diff(times)
    return len(times) >= FEWEST and bool((steps > 0).any()) and float((steps >= 0).mean()) > 0.95


def _has_masks(words: np.ndarray) -> bool:
    """Times stand in one half of words of 64 bits only, and the other half has types that 2.0 has not."""
    even, odd = words[0::2], words[1::2]
    for times, masks in ((odd, even), (even, odd)):
        is_other = ~OF_32[masks >> 28]
        if _rise(_times(times)) and not _rise(_times(masks)) and float(is_other.mean()) > 0.01:
            return bool(OF_32[times >> 28].all())
    return False


def _has_times_everywhere(words: np.ndarray) -> bool:
    """Times stand in both halves of words of 64 bits, so these are two words of 32."""
    return _rise(_times(words)) and _rise(_times(words[0::2])) and _rise(_times(words[1::2]))
