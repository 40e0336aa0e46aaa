"""AEDAT 2.0: jAER's recordings.

Lines that begin with `#`, then big-endian pairs of uint32: address, time in µs (a counter of 32 bits, unwrapped here).

layout      column           row              p            taken as an event when            x
dvs128      bits 1 .. 7      bits 8 .. 14     1 - bit 0    bit 15 = 0                         W - 1 - column
davis       bits 12 .. 21    bits 22 .. 30    bit 11       bit 31 = 0 and bit 10 = 0          W - 1 - column
dvxplorer   as davis                                                                          column
dvs640      bits 1 .. 10     bits 11 .. 19    bit 0        always                             column

Bit 31 marks samples of pictures and of the inertial sensor, bit 10 (or 15) events from outside; none of them is a
change of brightness. Which layout it is stands in the header line `AEChip: <class of jAER>`.

The file counts rows from the lower left corner; here, as everywhere, row 0 is at the top: y = H - 1 - row. The columns
of DVS128 and DAVIS count from the right: jAER and libcaer mirror them, v2e's writer mirrors them back, and in a
recording with an inertial sensor (DAVIS240C, panning) only the mirrored picture moves against the turn of the camera.

Where most records are no events of the layout, it is another one: an error, since wrong events would look like noise.

Source: the AEDAT file formats pages of iniVation; jAER's retina classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events, unwrapped
from spikecore_datasets_dvs.formats.binary import Columns, chunks, header, num_records, opened
from spikecore_datasets_dvs.reading import Reading, Sensor, Stated


@dataclass(frozen=True)
class Layout:
    """Where an address holds what.

    Args:
        x, y: lowest bit and number of bits of column and row.
        p: bit of the polarity.
        is_inverted: the bit is 0 for ON.
        others: an address with one of these bits is no event.
        samples: bits of records that are expected beside events, however many (pictures).
        is_mirrored: columns count from the right.
        side: `(H, W)` where all its sensors have the same; (0, 0) otherwise.
    """

    x: tuple[int, int]
    y: tuple[int, int]
    p: int
    is_inverted: bool = False
    others: int = 0
    samples: int = 0
    is_mirrored: bool = False
    side: Sensor = (0, 0)

    @property
    def stray(self) -> int:
        """Bits that no event has."""
        used = 1 << self.p
        for low, count in (self.x, self.y):
            used |= ((1 << count) - 1) << low
        return ~used & 0xFFFFFFFF


LAYOUTS = {
    "dvs128": Layout((1, 7), (8, 7), 0, is_inverted=True, others=1 << 15, is_mirrored=True, side=(128, 128)),
    "dvxplorer": Layout((12, 10), (22, 9), 11, others=1 << 31 | 1 << 10, samples=1 << 31, side=(480, 640)),
    "davis": Layout((12, 10), (22, 9), 11, others=1 << 31 | 1 << 10, samples=1 << 31, is_mirrored=True),
    "dvs640": Layout((1, 10), (11, 9), 0, side=(480, 640)),
}
"""By the word in the name of the chip."""
SIZES = {"128": (128, 128), "208": (192, 208), "240": (180, 240), "346": (260, 346), "640": (480, 640)}
"""`(H, W)` of the DAVIS chips, by the number in their names."""
CHIP = re.compile(rb"\s*AEChip:\s*(\S+)", re.IGNORECASE)


def stated(path: Path, reading: Reading) -> Stated:
    """The chip in the header says the size of the sensor."""
    with opened(path) as file:
        chip = _chip(_lines(header(file, b"#", path), path))
    size = _size(chip, reading.aedat2_layout)
    variant = f"AEDAT 2.0, chip {chip}" if chip else "AEDAT 2.0 without a chip in its header"
    where = "the header (AEChip)" if chip else f"the layout {reading.aedat2_layout}"
    return Stated(variant, size, where if size else "")


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a file.

    Raises:
        DatasetError: the file is damaged, its header does not say which layout or how large a sensor it is, or most
            records are no events of that layout.
    """
    with opened(path) as file:
        chip = _chip(_lines(header(file, b"#", path), path))
        name = reading.aedat2_layout if reading.aedat2_layout != "auto" else _layout(chip, path)
        own = next((other for other in LAYOUTS if other in chip), "")
        if {own, name} == {"davis", "dvxplorer"}:  # their bits are the same: nothing else would tell
            raise DatasetError(
                f"{path}: its header names the chip {chip!r}, and aedat2_layout = {name!r} was given; they differ in "
                "the side from which columns count: leave aedat2_layout out, or correct the header"
            )
        layout = LAYOUTS[name]
        size = _size(chip, name) or reading.sensor_size
        if size is None:
            raise DatasetError(
                f"{path}: its rows and columns are counted from the far corner, and of the chip {chip!r} the number of "
                "rows and columns is not known: give sensor_size as (H, W)"
            )
        count = num_records(file, 8, path)
        columns, start = Columns(count), file.tell()
        last = num_samples = num_strange = 0
        for pairs in chunks(file, ">u4", count, path, 2):
            address = pairs[:, 0].astype(np.uint32)
            t = pairs[:, 1].astype(np.int64)
            t = unwrapped(t, 1 << 32, last if last else int(t[0]))
            last = int(t[-1])
            keep = address & np.uint32(layout.others) == 0
            num_samples += int(np.count_nonzero(address & np.uint32(layout.samples)))
            if not keep.all():
                t, address = t[keep], address[keep]
            num_strange += int(np.count_nonzero(address & np.uint32(layout.stray)))
            columns.put(t, *_decoded(address, layout, size, path))
        num_events = columns.count - num_strange
        if count and (num_events == 0 or 2 * num_events < count - num_samples):
            file.seek(start)
            first = next(chunks(file, ">u4", count, path, 2))[:, 0].astype(np.uint32)
            raise DatasetError(_misfit(path, name, own, count, num_events, num_samples, first))
    return columns.events()


def _decoded(
    address: np.ndarray, layout: Layout, size: Sensor, path: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, p of addresses of events."""
    (x_low, x_bits), (y_low, y_bits) = layout.x, layout.y
    column, row = address >> x_low & (1 << x_bits) - 1, address >> y_low & (1 << y_bits) - 1
    p = address >> layout.p & 1
    height, width = size
    for what, places, side, letter in (("row", row, height, "H"), ("column", column, width, "W")):
        if len(places) and int(places.max()) >= side:
            raise DatasetError(
                f"{path}: {what} {int(places.max())} lies outside the sensor of {letter} = {side}; "
                "is the chip in its header, or sensor_size, or aedat2_layout right?"
            )
    x = width - 1 - column if layout.is_mirrored else column
    return x, height - 1 - row, 1 - p if layout.is_inverted else p


def _misfit(path: Path, name: str, own: str, count: int, num_events: int, num_samples: int, first: np.ndarray) -> str:
    """What is wrong with the layout, and which others would fit; that of the chip in the header comes first."""
    fitting = []
    for other, layout in LAYOUTS.items():
        is_event = first & np.uint32(layout.others | layout.stray) == 0
        others = np.count_nonzero(first & np.uint32(layout.samples))
        if other != name and 2 * np.count_nonzero(is_event) >= max(len(first) - others, 1):
            fitting.insert(0 if other == own else len(fitting), other)
    samples = f" and {num_samples} samples of pictures or of the inertial sensor" if num_samples else ""
    advice = f'; the addresses fit {" or ".join(fitting)}: aedat2_layout = "{fitting[0]}"' if fitting else ""
    return (
        f"{path}: of {count} records {num_events} are events in the layout {name!r}{samples}: this is another layout, "
        f"or a recording without events{advice}"
    )


def _lines(lines: list[bytes], path: Path) -> list[bytes]:
    if not lines or (lines[0].startswith(b"!AER-DAT") and not lines[0].startswith(b"!AER-DAT2")):
        raise DatasetError(f"{path}: is not AEDAT 2.0: it begins with {(lines or [b'no header'])[0][:20]!r}")
    return lines


def _chip(lines: list[bytes]) -> str:
    """The class of the chip, in lower case; "" where the header names none."""
    for line in lines:
        if match := CHIP.match(line):
            return match[1].decode("latin-1").lower()
    return ""


def _layout(chip: str, path: Path) -> str:
    for name in LAYOUTS:
        if name in chip:
            return name
    shown = f"names the chip {chip!r}" if chip else "has no line 'AEChip: …'"
    raise DatasetError(
        f"{path}: its header {shown}; one with {', '.join(LAYOUTS)} in its name is expected, since the layout of an "
        f'address depends on it: say which it is (aedat2_layout = "dvs128"), and sensor_size = [H, W]'
    )


def _size(chip: str, layout: str) -> Sensor | None:
    """The sensor's size, from the layout where that has one only, else from the number in the chip's name."""
    if layout == "auto":
        layout = next((name for name in LAYOUTS if name in chip), "")
    if layout in LAYOUTS and LAYOUTS[layout].side != (0, 0):
        return LAYOUTS[layout].side
    match = re.search(rf"davis\D*({'|'.join(SIZES)})", chip)
    return SIZES[match[1]] if match else None
