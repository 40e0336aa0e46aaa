"""AEDAT 2.0: jAER's recordings.

Lines that begin with `#`, then big-endian pairs of uint32: address, time in µs (a counter of 32 bits, unwrapped here).

layout    x                y                p                 taken as an event when
dvs128    bits 1 .. 7      bits 8 .. 14     1 - bit 0         bit 15 = 0
davis     bits 12 .. 21    bits 22 .. 30    bit 11            bit 31 = 0 and bit 10 = 0

Bit 31 marks samples of pictures and of the inertial sensor, bit 10 (or 15) events from outside; none of them is a
change of brightness. Which layout it is stands in the header line `AEChip: <class of jAER>`.

The file counts rows from the lower left corner; here, as everywhere, row 0 is at the top: y = H - 1 - row.

Source: the AEDAT file formats pages of iniVation; jAER's retina classes.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events, unwrapped
from spikecore_datasets_dvs.formats.binary import Columns, chunks, header, num_records

LAYOUTS = ("dvs128", "davis")
HEIGHTS = {"128": 128, "208": 192, "240": 180, "346": 260, "640": 480}
"""Rows of the DAVIS chips, by the number in their names."""
CHIP = re.compile(rb"\s*AEChip:\s*(\S+)", re.IGNORECASE)


def read(path: Path, layout: str = "auto", height: int = 0) -> Events:
    """The events of a file.

    Args:
        path: the file.
        layout: `dvs128`, `davis`, or `auto`: that of the chip that the header names.
        height: H of the sensor, where the chip's is not known.

    Raises:
        DatasetError: the file is damaged, or its header does not say which layout or how many rows it has.
    """
    with path.open("rb") as file:
        lines = header(file, b"#", path)
        if not lines or (lines[0].startswith(b"!AER-DAT") and not lines[0].startswith(b"!AER-DAT2")):
            raise DatasetError(f"{path}: is not AEDAT 2.0: it begins with {(lines or [b'no header'])[0][:20]!r}")
        chip = _chip(lines)
        if layout == "auto":
            layout = _layout(chip, path)
        height = _height(chip, layout, height, path)
        count = num_records(file, 8, path)
        columns = Columns(count)
        last = 0
        for pairs in chunks(file, ">u4", count, path, 2):
            address = pairs[:, 0].astype(np.uint32)
            first = not columns.count and not last
            t = pairs[:, 1].astype(np.int64)
            t = unwrapped(t, 1 << 32, int(t[0]) if first else last)
            last = int(t[-1])
            if layout == "davis":
                keep = address & (1 << 31 | 1 << 10) == 0
                x, row, p = address >> 12 & 0x3FF, address >> 22 & 0x1FF, address >> 11 & 1
            else:
                keep = address & 0x8000 == 0
                x, row, p = address >> 1 & 0x7F, address >> 8 & 0x7F, 1 - (address & 1)
            if not keep.all():
                t, x, row, p = t[keep], x[keep], row[keep], p[keep]
            if len(row) and int(row.max()) >= height:
                raise DatasetError(
                    f"{path}: row {int(row.max())} lies outside the sensor of H = {height}; "
                    "is the chip in its header, or sensor_size, right?"
                )
            columns.put(t, x, height - 1 - row, p)
    return columns.events()


def _chip(lines: list[bytes]) -> str:
    """The class of the chip, in lower case; "" where the header names none."""
    for line in lines:
        if match := CHIP.match(line):
            return match[1].decode("latin-1").lower()
    return ""


def _layout(chip: str, path: Path) -> str:
    for layout in LAYOUTS:
        if layout in chip:
            return layout
    found = f"names the chip {chip!r}" if chip else "has no line 'AEChip: …'"
    raise DatasetError(
        f"{path}: its header {found}; one with {' or '.join(LAYOUTS)} in its name is expected, since the layout of an "
        f'address depends on it: say which it is (event-folder: aedat2_layout = "dvs128")'
    )


def _height(chip: str, layout: str, height: int, path: Path) -> int:
    if layout == "dvs128":
        return 128
    if match := re.search(rf"davis\D*({'|'.join(HEIGHTS)})", chip):
        return HEIGHTS[match[1]]
    if not height:
        raise DatasetError(
            f"{path}: its rows count from below, and of the chip {chip!r} the number of rows is not known: give "
            "sensor_size as (H, W)"
        )
    return height
