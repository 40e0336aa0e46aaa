"""A table of labels: which part of which recording is of which class; CSV with a heading.

file,start_us,stop_us,label
cam/monday.aedat4,1200000,3400000,wave
cam/monday.aedat4,3400000,5000000,clap

`file` is relative to the table's directory. `start` and `stop` end in `_us`, `_ms` or `_s`; both count like the times
in the recording, `stop` is the first moment behind the part. Without them, or where both are empty, the whole recording
is meant. `subject` and `split` (train, val, test) may follow.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from spikecore.errors import DatasetError
from spikecore.files import read_file
from spikecore_datasets_dvs.named import below

LARGEST = 1 << 28
UNITS = {"us": 1, "ms": 1000, "s": 1_000_000}
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Row:
    """A part of a recording.

    Args:
        line: in the table.
        path: of the recording.
        label: name of its class.
        start_us, stop_us: the part; a `stop_us` of -1 means all of it.
        subject: who was recorded.
        split: "" where the table has no such column.
    """

    line: int
    path: Path
    label: str
    start_us: int = 0
    stop_us: int = -1
    subject: str = ""
    split: str = ""


def read_table(path: Path) -> list[Row]:
    """The rows of a table.

    Raises:
        DatasetError: it cannot be read, its heading lacks a column, or a row is wrong; says which.
    """
    try:
        text = read_file(path, LARGEST).decode("utf-8-sig")
        lines = list(csv.reader(text.splitlines()))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: the table of labels is missing") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: the table of labels cannot be read: {error}") from error
    heading = [name.strip().lower() for name in lines[0]] if lines else []
    if twice := sorted({name for name in heading if heading.count(name) > 1}):
        raise DatasetError(f"{path}: its heading has {twice[0]!r} twice: keep one of them")
    if not {"file", "label"} <= set(heading):
        raise DatasetError(
            f"{path}: its heading is {heading}; file, start_us, stop_us and label are expected (also _ms, _s; subject, "
            "split)"
        )
    ends = {end: _end(path, heading, end) for end in ("start", "stop")}
    if (ends["start"] is None) != (ends["stop"] is None):
        raise DatasetError(f"{path}: its heading is {heading}; start and stop are expected together")
    rows = [_row(path, number, heading, ends, cells) for number, cells in enumerate(lines[1:], 2) if cells]
    if not rows:
        raise DatasetError(f"{path}: has no row below its heading")
    return rows


def _end(path: Path, heading: list[str], end: str) -> tuple[int, int] | None:
    """Place of the column, and microseconds per unit; None where there is no such column."""
    ends = [name for name in heading if name in (end, *(f"{end}_{unit}" for unit in UNITS))]
    if len(ends) > 1:
        raise DatasetError(f"{path}: its heading has {' and '.join(ends)}: which is it? Keep one of them")
    for place, name in enumerate(heading):
        stem, _, unit = name.rpartition("_")
        if stem == end and unit in UNITS:
            return place, UNITS[unit]
        if name == end:
            raise DatasetError(
                f"{path}: the column {end!r} does not state its unit: call it {end}_us, {end}_ms or {end}_s"
            )
    return None


def _row(path: Path, number: int, heading: list[str], ends: dict[str, tuple[int, int] | None], cells: list[str]) -> Row:
    if len(cells) != len(heading):
        raise DatasetError(f"{path}: line {number} has {len(cells)} cells; its heading has {len(heading)}")
    values = {name: cell.strip() for name, cell in zip(heading, cells, strict=True)}
    times = {end: _time(path, number, cells[place[0]], place[1]) for end, place in ends.items() if place}
    start, stop = times.get("start"), times.get("stop")
    if (start is None) != (stop is None):
        raise DatasetError(f"{path}: line {number} has one of start and stop; both or neither are expected")
    if start is not None and stop is not None and stop <= start:
        raise DatasetError(f"{path}: line {number} ends at {stop} µs, not behind its start at {start} µs")
    if stop is not None and stop <= 0:  # -1 stands for the end of the recording elsewhere
        raise DatasetError(
            f"{path}: line {number} ends at {stop} µs; a time above 0 is expected: parts before the recording's zero "
            "cannot be named, so add a time to all of the recording"
        )
    split = values.get("split", "").lower()
    if "split" in heading and split not in SPLITS:
        raise DatasetError(f"{path}: line {number} has the split {split!r}; {', '.join(SPLITS)} are expected")
    if not values["label"] or not values["file"]:
        raise DatasetError(f"{path}: line {number} lacks a file or a label")
    return Row(
        number,
        below(path.parent, values["file"], path),
        values["label"],
        start or 0,
        -1 if stop is None else stop,
        values.get("subject", ""),
        split,
    )


def _time(path: Path, number: int, cell: str, factor: int) -> int | None:
    if not cell.strip():
        return None
    try:
        time = float(cell) * factor
        if abs(time) < 1 << 61 and time == time:
            return round(time)
    except ValueError:
        pass
    raise DatasetError(f"{path}: line {number} has the time {cell!r}; a number is expected")


def check_disjoint(rows: list[Row], splits: list[str]) -> None:
    """No part of a recording is in two splits.

    Args:
        rows: of a table.
        splits: the split of each.

    Raises:
        DatasetError: two of them overlap.
    """
    by_file: dict[Path, list[tuple[float, float, str, int]]] = {}
    for row, split in zip(rows, splits, strict=True):
        is_whole = row.stop_us < 0
        start, stop = (float("-inf"), float("inf")) if is_whole else (row.start_us, row.stop_us)
        by_file.setdefault(row.path, []).append((start, stop, split, row.line))
    for path, parts in by_file.items():
        reach: dict[str, tuple[float, int]] = {}
        for start, stop, split, line in sorted(parts):
            for other, (end, before) in reach.items():
                if other != split and start < end:
                    raise DatasetError(
                        f"{path}: the parts in lines {before} and {line} of the table overlap and are in the splits "
                        f"{other} and {split}: give them the same one, in a column 'split' or by 'subject'"
                    )
            if split not in reach or stop > reach[split][0]:
                reach[split] = (stop, line)
