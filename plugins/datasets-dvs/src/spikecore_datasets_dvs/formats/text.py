"""Text: an event a line, separated by commas, semicolons, tabs or blanks.

t,x,y,p                     a heading names the columns and may state the unit (`timestamp_us`, `t [s]`)
# t x y p                   one of the lines that begin with # or % may be the heading; others are passed over
346 260                     a first line of two numbers is W and H, as the event cameras' tools of RPG write it
0.000213 120 87 1           without a heading the user says the order and the unit: columns = "txyp", unit = "s"

Polarities may be True and False. Times without a stated unit are never taken for microseconds. Regular texts are parsed
by `digits`, others by numpy's `loadtxt`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.columns import check_rising, column_of, places, unit_of
from spikecore_datasets_dvs.events import COLUMNS, Events, Unit, empty, make_events
from spikecore_datasets_dvs.formats.binary import opened
from spikecore_datasets_dvs.formats.digits import Layout, regular_columns
from spikecore_datasets_dvs.reading import SKIPPED, Reading, Sensor, Stated

COMMENTS = (b"#", b"%")
MAX_LINE = 1 << 12
MAX_COMMENTS = 10_000
TRUTH = (b"true", b"false")
NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class _Front:
    """What stands in front of the events.

    Args:
        heading: names of the columns; empty without one.
        sensor_size: `(H, W)` from a first line of two numbers.
        separator: of columns; "" for blanks.
        first: the first line of numbers, in parts; empty where there is none.
        at: where that line begins.
    """

    heading: tuple[str, ...]
    sensor_size: Sensor | None
    separator: str
    first: tuple[bytes, ...]
    at: int


def stated(path: Path, reading: Reading) -> Stated:
    """The heading, and the size of the sensor where the first line states it."""
    with opened(path) as file:
        front = _front(file, path)
    heading = f" with the heading {', '.join(front.heading)}" if front.heading else " without a heading"
    size = front.sensor_size
    return Stated(f"text{heading}", size, "the first line (W H)" if size else "")


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a file.

    Raises:
        DatasetError: a line has another form than the first, or nobody says what the columns are, or in which unit.
    """
    source = str(path)
    with opened(path) as file:
        front = _front(file, path)
        if not front.first:
            return empty()
        where, unit = _columns(file, front, reading, source)
        arrays, unit = _parsed(file, front, where, unit, source)
    check_rising(arrays["t"], source)
    return make_events(*(arrays[column] for column in COLUMNS), source=source, unit=unit, on_values=reading.on_values)


def _front(file: BinaryIO, path: Path) -> _Front:
    heading: tuple[str, ...] = ()
    in_comment: tuple[str, ...] = ()
    size: Sensor | None = None
    for _ in range(MAX_COMMENTS):
        at = file.tell()
        line = file.readline(MAX_LINE)
        if not line:
            return _Front(heading, size, "", (), at)
        if len(line) == MAX_LINE or b"\0" in line:
            raise DatasetError(f"{path}: is no text of an event a line: it begins with {line[:20]!r}")
        text = line.strip().removeprefix(b"\xef\xbb\xbf")  # a mark that some editors put first
        if not text:
            continue
        if text.startswith(COMMENTS):
            names = _names(text.lstrip(b"#% "))
            if {pair[0] for pair in map(column_of, names) if pair is not None} == set(COLUMNS):
                in_comment = names
            continue
        separator = _separator(text)
        parts = tuple(part.strip() for part in text.split(separator.encode() or None))
        if all(NUMBER.fullmatch(part) or part.lower() in TRUTH for part in parts):
            if len(parts) == 2 and size is None and all(part.isdigit() for part in parts):
                size = (int(parts[1]), int(parts[0]))
                continue
            return _Front(heading or in_comment, size, separator, parts, at)
        if heading:
            raise DatasetError(f"{path}: the line {text[:60]!r} is no numbers; an event a line is expected")
        heading = _names(text)
    raise DatasetError(f"{path}: its first {MAX_COMMENTS} lines are comments; events are expected")


def _separator(text: bytes) -> str:
    return next((mark for mark in (",", ";", "\t") if mark.encode() in text), "")


def _names(text: bytes) -> tuple[str, ...]:
    """The words of a heading."""
    parts = text.split(_separator(text).encode() or None)
    return tuple(part.decode("utf-8", errors="replace").strip("\"' ") for part in parts)


def _columns(file: BinaryIO, front: _Front, reading: Reading, source: str) -> tuple[dict[str, int], Unit]:
    """Column → its place in a line, and the unit of times.

    Raises:
        DatasetError: neither the heading nor the user says so.
    """
    shown = (front.separator or " ").join(part.decode("ascii") for part in front.first)
    stated_unit: Unit | None = None
    if reading.columns:
        if len(reading.columns) != len(front.first):
            raise DatasetError(
                f"{source}: columns = {reading.columns!r} names {len(reading.columns)} columns, and the first line has "
                f"{len(front.first)}: {shown!r}; use {SKIPPED} for columns to pass over"
            )
        where = {column: reading.columns.index(column) for column in COLUMNS}
        stated_unit = _agreed(front.heading, where, source)
    elif front.heading:
        if len(front.heading) != len(front.first):
            raise DatasetError(
                f"{source}: its heading names {len(front.heading)} columns, and the first line has "
                f"{len(front.first)}: {shown!r}"
            )
        names, stated_unit = places(front.heading, reading, source)
        where = {column: front.heading.index(name) for column, name in names.items()}
    else:
        raise DatasetError(
            f"{source}: has no heading; its first line is {shown!r}. Say what the columns are and the unit of times, "
            'as in columns = "txyp" and unit = "s"'
        )
    times = _ends(file, front, where["t"]) if reading.unit == "auto" and stated_unit is None else np.empty(0)
    return where, unit_of(reading, stated_unit, source, times)


def _ends(file: BinaryIO, front: _Front, place: int) -> np.ndarray:
    """The times of the first line and of the last, for a message."""
    file.seek(0, io.SEEK_END)
    file.seek(max(file.tell() - MAX_LINE, front.at))
    last = file.read().split(b"\n")
    texts = [front.first[place]]
    for line in last:
        parts = line.strip().split(front.separator.encode() or None)
        if len(parts) == len(front.first) and NUMBER.fullmatch(parts[place].strip()):
            texts[1:] = [parts[place].strip()]
    is_whole = all(text.lstrip(b"+-").isdigit() for text in texts)
    return np.array([int(text) if is_whole else float(text) for text in texts])


def _agreed(heading: Sequence[str], where: dict[str, int], source: str) -> Unit | None:
    """The unit that a heading states beside `columns`.

    Raises:
        DatasetError: a name in it says another column than `columns` does.
    """
    stated_unit: Unit | None = None
    for place, name in enumerate(heading):
        known = column_of(name)
        if known is None or (known[0] in where and where[known[0]] == place):
            stated_unit = (known and known[1]) or stated_unit
        elif place in where.values():
            said = next(column for column, own in where.items() if own == place)
            raise DatasetError(
                f"{source}: its heading names column {place + 1} {name!r}, and 'columns' says that it is {said}: leave "
                "'columns' out where the heading is right"
            )
    return stated_unit


def _parsed(
    file: BinaryIO, front: _Front, where: dict[str, int], unit: Unit, source: str
) -> tuple[dict[str, np.ndarray], Unit]:
    """The columns, and the unit in which the times now are."""
    time = front.first[where["t"]]
    decimals = len(time.partition(b".")[2])
    file.seek(front.at)
    if re.fullmatch(rb"[+-]?[0-9]+(\.[0-9]+)?", time):
        layout = Layout(front.separator.encode() or b" ", len(front.first), where, decimals)
        if (arrays := regular_columns(file, layout, unit)) is not None:
            return arrays, "us" if decimals else unit
    is_whole = {column: front.first[place].lstrip(b"+-").isdigit() for column, place in where.items()}
    kinds = {column: "i8" if whole else "f8" for column, whole in is_whole.items()}
    is_truth = front.first[where["p"]].lower() in TRUTH
    for attempt in (kinds, dict.fromkeys(where, "f8")):  # `0` and then `0.001`: the first line did not show it
        file.seek(front.at)
        try:
            return _loaded(file, front, where, {**attempt, "p": "S6"} if is_truth else attempt, source), unit
        except ValueError as error:
            problem = error
    # What numpy says of lines of other lengths names an option of its own.
    said = str(problem).partition("; use `usecols`")[0]
    raise DatasetError(
        f"{source}: a line is no event like the first: {said}. An event a line is expected, with {len(front.first)} "
        "columns each; 'columns' passes over those named _"
    ) from problem


def _loaded(
    file: BinaryIO, front: _Front, where: dict[str, int], kinds: dict[str, str], source: str
) -> dict[str, np.ndarray]:
    # A type for every column, those passed over too: so numpy refuses lines with more columns than the first.
    names = {place: column for column, place in where.items()}
    fields = [
        (names.get(place, f"passed{place}"), kinds.get(names.get(place, ""), "S1")) for place in range(len(front.first))
    ]
    lines = io.TextIOWrapper(file, encoding="latin-1", newline="")
    try:
        rows = np.loadtxt(
            lines,
            dtype=fields,
            comments=[mark.decode() for mark in COMMENTS],
            delimiter=front.separator or None,
            ndmin=1,
        )
    finally:
        lines.detach()
    arrays = {column: rows[column] for column in where}
    if kinds["p"] == "S6":
        arrays["p"] = _truths(arrays["p"], source)
    return arrays


def _truths(column: np.ndarray, source: str) -> np.ndarray:
    """1 for True and 0 for False."""
    words = np.char.lower(np.char.strip(column))
    is_true: np.ndarray = words == TRUTH[0]
    if not (is_true | (words == TRUTH[1])).all():
        other = words[~(is_true | (words == TRUTH[1]))][0].decode("latin-1")
        raise DatasetError(f"{source}: polarities begin with True or False, and one is {other!r}: write all alike")
    return is_true
