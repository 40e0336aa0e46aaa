"""Numbers of a regular text, a whole piece of it at a time: several times as fast as a parser that goes line by line.

Regular is a text with one separator between columns, and with as many decimals of the time in every line. Its times
are exact: `1.000213` s is the whole number 1000213, and never a float. Any other text is left to numpy's `loadtxt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from spikecore_datasets_dvs.events import LONGEST_US, Unit

PIECE = 1 << 18
"""Bytes parsed at a time: they and their columns stay in a cache."""
MOST_DIGITS = 18
"""Of a number, that fit into int64 whatever they are."""
POWER: dict[Unit, int] = {"s": 6, "ms": 3, "us": 0, "ns": -3}
"""Microseconds in a unit, as a power of ten."""
NEWLINE, RETURN, PLUS, MINUS, POINT, ZERO = b"\n\r+-.0"


@dataclass(frozen=True)
class Layout:
    """What every line looks like.

    Args:
        separator: one byte.
        num_columns: of a line.
        where: column → its place.
        decimals: of the time; 0: it has no point.
    """

    separator: bytes
    num_columns: int
    where: Mapping[str, int]
    decimals: int


def regular_columns(file: BinaryIO, layout: Layout, unit: Unit) -> dict[str, np.ndarray] | None:
    """The columns as int64; times with decimals in microseconds, others in their unit. None of an irregular text.

    Args:
        file: stands at the first line of numbers.
        layout: of the lines.
        unit: of times.
    """
    if layout.decimals > MOST_DIGITS or (layout.decimals and unit == "us"):
        return None  # whether fractions of a microsecond are all zero is seen elsewhere
    pieces: list[dict[str, np.ndarray]] = []
    for block in _blocks(file):
        columns = _columns(np.frombuffer(block, np.uint8), layout)
        if columns is None:
            return None
        pieces.append(columns)
    columns = {name: np.concatenate([piece[name] for piece in pieces]) for name in layout.where}
    if layout.decimals:
        times = _shifted(columns["t"], POWER[unit] - layout.decimals)
        if times is None:
            return None
        columns["t"] = times
    return columns


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """Whole lines, each with its end."""
    rest = b""
    while piece := file.read(PIECE):
        lines, end, rest = (rest + piece).rpartition(b"\n")
        if end:
            yield lines + end
    if rest.strip():
        yield rest + b"\n"


def _columns(raw: np.ndarray, layout: Layout) -> dict[str, np.ndarray] | None:
    width = layout.num_columns
    is_newline = raw == NEWLINE
    ends = np.flatnonzero(is_newline | (raw == layout.separator[0]))
    if len(ends) % width:
        return None
    starts = np.concatenate([[0], ends[:-1] + 1]).reshape(-1, width)
    ends = ends.reshape(-1, width)
    if not is_newline[ends[:, -1]].all() or np.count_nonzero(is_newline) != len(ends):
        return None
    if len(layout.where) < width and bool(((raw == ord("#")) | (raw == ord("%"))).any()):
        return None  # perhaps a comment, whose first column nobody looks at
    if raw[ends[0, -1] - 1] == RETURN:
        ends[:, -1] -= 1
    columns = {}
    for name, place in layout.where.items():
        start, end = np.ascontiguousarray(starts[:, place]), np.ascontiguousarray(ends[:, place])
        decimals = layout.decimals if name == "t" else 0
        values = _numbers(raw, start, end, decimals)
        if values is None:
            return None
        columns[name] = values
    return columns


def _numbers(raw: np.ndarray, start: np.ndarray, end: np.ndarray, decimals: int) -> np.ndarray | None:
    """Numbers between these places, times ten to the power of their decimals; None where one is no plain number."""
    first = raw[start]
    is_negative = first == MINUS
    start = start + (is_negative | (first == PLUS))
    point = end - decimals - 1 if decimals else end
    whole = _digits(raw, start, point, MOST_DIGITS - decimals)
    if whole is None:
        return None
    if decimals:
        fraction = _digits(raw, point + 1, end, decimals)
        if fraction is None or not (raw[point] == POINT).all():
            return None
        whole = whole * 10**decimals + fraction
    return np.where(is_negative, -whole, whole) if is_negative.any() else whole


def _digits(raw: np.ndarray, start: np.ndarray, end: np.ndarray, most: int) -> np.ndarray | None:
    lengths = end - start
    least, longest = int(lengths.min()), int(lengths.max())
    if least < 1 or longest > most:
        return None
    values = np.zeros(len(start), np.int64)
    for place in range(longest):
        digit = raw[np.minimum(start + place, len(raw) - 1)] - np.uint8(ZERO)  # wraps round for what is below "0"
        if place < least:
            if digit.max() > 9:
                return None
            values = values * 10 + digit
        else:
            is_inside = place < lengths
            if digit[is_inside].max() > 9:
                return None
            values = np.where(is_inside, values * 10 + digit, values)
    return values


def _shifted(values: np.ndarray, power: int) -> np.ndarray | None:
    """Values times ten to this power, rounded half to even as floats are; None where that leaves the range of times."""
    if power >= 0:
        limit = LONGEST_US // 10**power
        if int(values.min()) < -limit or int(values.max()) > limit:
            return None
        return values * 10**power
    divisor = 10**-power
    quotient, rest = np.divmod(values, divisor)
    is_up = (2 * rest > divisor) | ((2 * rest == divisor) & (quotient & 1 == 1))
    return quotient + is_up
