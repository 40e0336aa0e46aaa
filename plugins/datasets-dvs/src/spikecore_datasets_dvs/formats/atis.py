"""ATIS 40-bit events (`.bin` of N-MNIST and N-Caltech101): five bytes each, no header.

byte 0: x    byte 1: y    byte 2, bit 7: p    the other 23 bits, big-endian: t in µs

An event with y = 240 marks an overflow of the time: it is no event, and 2^13 µs are added to all that follow.

Source: Orchard et al., Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades (Frontiers in
Neuroscience 2015); the overflow rule is that of the readers published with it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikecore_datasets_dvs.events import Events
from spikecore_datasets_dvs.formats.binary import Columns, chunks, num_records

OVERFLOW_Y = 240
OVERFLOW_US = 1 << 13


def read(path: Path) -> Events:
    """The events of a file."""
    with path.open("rb") as file:
        count = num_records(file, 5, path)
        columns = Columns(count)
        overflows = 0
        for raw in chunks(file, np.uint8, count, path, 5):
            x, y, high = raw[:, 0], raw[:, 1], raw[:, 2]
            t = (high & 0x7F).astype(np.int32) << 16
            t |= np.ascontiguousarray(raw[:, 3:]).view(">u2").reshape(-1)
            marks = y == OVERFLOW_Y
            if overflows or marks.any():
                late = t + (overflows + np.cumsum(marks, dtype=np.int64)) * OVERFLOW_US
                overflows += int(marks.sum())
                real = ~marks
                columns.put(late[real], x[real], y[real], high[real] >> 7)
            else:
                columns.put(t, x, y, high >> 7)
    return columns.events()
