"""Pictures as PNG, several as an animated PNG: lossless, shown by every browser, and no more than zlib.

Source: Portable Network Graphics (PNG) Specification, third edition, W3C 2025; animation: acTL, fcTL and fdAT chunks.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {1: 0, 3: 2}
"""Channels → PNG's number for grey, and for red, green and blue."""


def png(frames: Sequence[bytes], width: int, height: int, channels: int, frames_per_s: float = 0.0) -> bytes:
    """The file.

    Args:
        frames: pixels of each picture as they are read, a byte per channel: `height * width * channels` bytes.
        width, height: in pixels.
        channels: 1 for grey, 3 for red, green and blue.
        frames_per_s: of several pictures; they start over after the last one.
    """
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    parts = [SIGNATURE, _chunk(b"IHDR", header)]
    if len(frames) == 1:
        parts.append(_chunk(b"IDAT", _packed(frames[0], width * channels)))
        return b"".join([*parts, _chunk(b"IEND", b"")])
    parts.append(_chunk(b"acTL", struct.pack(">II", len(frames), 0)))
    delay = Fraction(1 / frames_per_s).limit_denominator(1000)
    number = 0  # of the chunk among those of the animation
    for index, frame in enumerate(frames):
        place = struct.pack(">IIIII", number, width, height, 0, 0)
        parts.append(_chunk(b"fcTL", place + struct.pack(">HHBB", delay.numerator, delay.denominator, 0, 0)))
        number += 1
        data = _packed(frame, width * channels)
        if index == 0:  # a viewer without animation shows the first one
            parts.append(_chunk(b"IDAT", data))
            continue
        parts.append(_chunk(b"fdAT", struct.pack(">I", number) + data))
        number += 1
    return b"".join([*parts, _chunk(b"IEND", b"")])


def data_url(file: bytes) -> str:
    """The file as an address that a page needs no request for."""
    return "data:image/png;base64," + base64.b64encode(file).decode()


def _packed(pixels: bytes, row: int) -> bytes:
    # Every row begins with the number of its filter; 0 is none.
    lines = b"".join(b"\0" + pixels[start : start + row] for start in range(0, len(pixels), row))
    return zlib.compress(lines, 9)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
