"""MATLAB files, version 5 (`save` with -v6 or -v7): arrays of real numbers, in either byte order, packed or not.

header, 128 bytes   text; bytes 124, 125 version 0x0100; bytes 126, 127 `IM` (little-endian) or `MI`
element             uint32 type, uint32 size, data, padded to 8 bytes
small element       uint16 type, uint16 size (in one uint32, the size in its upper half), 4 bytes for the data
type 15             a zlib stream that holds one element; not padded
type 14, an array   elements: flags (class in the lowest byte), sizes of the axes, name, numbers in column order

Other classes (text, cells, structures) are passed over. Every size is held against what is there before memory is
taken; scipy, which reads these files too, can be made to crash by a damaged one.

Source: MathWorks, MAT-File Format (the description of level 5).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.formats.binary import opened

HEADER = 128
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, COMPRESSED = 14, 15
REAL_CLASSES = range(6, 16)
COMPLEX = 0x0800
LARGEST_RATIO = 1100
"""Deflate packs at most about a thousand to one."""


def read_mat(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Named arrays of a file, each as one axis.

    Raises:
        DatasetError: the file is damaged or of another version, or lacks one of them.
    """
    with opened(path) as file:
        raw = memoryview(file.read())
    order = {b"IM": "<", b"MI": ">"}.get(bytes(raw[126:128]), "")
    if not order or struct.unpack_from(f"{order}H", raw, 124)[0] >> 8 != 1:
        raise DatasetError(f"{path}: is not a MATLAB file of version 5; save it again with -v7")
    arrays: dict[str, np.ndarray] = {}
    try:
        for kind, data in _elements(raw[HEADER:], order):
            if kind == COMPRESSED:
                ((kind, data),) = _elements(_unpacked(data), order)
            if kind == MATRIX and (array := _array(data, order)) is not None:
                arrays.setdefault(*array)
    except (struct.error, ValueError, zlib.error) as error:
        raise DatasetError(f"{path}: is not a sound MATLAB file: {error}") from error
    if missing := [name for name in names if name not in arrays]:
        raise DatasetError(f"{path}: lacks the array {missing[0]!r}; it has {', '.join(arrays) or 'none'}")
    return [arrays[name] for name in names]


def _elements(raw: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    at = 0
    while at < len(raw):
        (word,) = struct.unpack_from(f"{order}I", raw, at)
        if word >> 16:
            kind, size, start, step = word & 0xFFFF, word >> 16, at + 4, 4
            if size > 4:
                raise ValueError(f"a small element names {size} bytes")
        else:
            kind, (size,), start = word, struct.unpack_from(f"{order}I", raw, at + 4), at + 8
            step = size if kind == COMPRESSED else -(-size // 8) * 8
        if start + size > len(raw):
            raise ValueError(f"an element names {size} bytes and {max(len(raw) - start, 0)} follow: it is cut short")
        yield kind, raw[start : start + size]
        at = start + step


def _unpacked(data: memoryview) -> memoryview:
    unpacker = zlib.decompressobj()
    out = unpacker.decompress(data, LARGEST_RATIO * max(len(data), 1))
    if not unpacker.eof:
        raise ValueError("a packed element is cut short, or claims an impossible size")
    return memoryview(out)


def _array(data: memoryview, order: str) -> tuple[str, np.ndarray] | None:
    """Name and numbers; None for what is no array of real numbers."""
    (_, flags), (_, sizes), (_, name), *rest = _elements(data, order)
    (word,) = struct.unpack_from(f"{order}I", flags)
    if word & 0xFF not in REAL_CLASSES or word & COMPLEX or not rest:
        return None
    kind, numbers = rest[0]
    if kind not in NUMBERS:
        raise ValueError(f"numbers of type {kind}, which there is none of")
    lengths = np.frombuffer(sizes, f"{order}i4").tolist()
    array = np.frombuffer(numbers, order + NUMBERS[kind])
    if min(lengths, default=-1) < 0 or math.prod(lengths) != len(array):
        raise ValueError(f"an array names the sizes {lengths} and holds {len(array)} numbers")
    return bytes(name).decode("ascii", errors="replace"), array
