"""Events: what a sensor saw, as four columns in time order.

t   int64    microseconds
x   uint16   column, 0 .. W - 1
y   uint16   row, 0 .. H - 1
p   uint8    1: brighter, 0: darker

A cochlea has H = 1: x is the unit (channel), y and p are 0 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikecore.errors import DatasetError

DTYPE = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
"""The same four as one structured array, as it stands in `.npy` files."""
LONGEST_US = 1 << 61
"""How far times may be from 0 (73 000 years): sums and differences of two of them fit their column."""
COLUMNS = {"t": np.int64, "x": np.uint16, "y": np.uint16, "p": np.uint8}


@dataclass(frozen=True, eq=False)
class Events:
    """Columns of equal length; indexing with a slice, a mask or an index array gives events again.

    Args:
        t, x, y, p: see the module.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, which: Any) -> Events:
        return Events(self.t[which], self.x[which], self.y[which], self.p[which])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Events):
            return NotImplemented
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in COLUMNS)

    __hash__ = None  # type: ignore[assignment]

    @property
    def duration_us(self) -> int:
        """From the first event to the last; 0 without events."""
        return int(self.t[-1] - self.t[0]) if len(self) else 0

    def replace(self, **columns: np.ndarray) -> Events:
        """With other columns."""
        return Events(**{name: columns.get(name, getattr(self, name)) for name in COLUMNS})

    def structured(self) -> np.ndarray:
        """One array of `DTYPE`."""
        out = np.empty(len(self), DTYPE)
        for name in COLUMNS:
            out[name] = getattr(self, name)
        return out


def empty() -> Events:
    """No events."""
    return Events(*(np.empty(0, kind) for kind in COLUMNS.values()))


def make_events(t: Any, x: Any, y: Any, p: Any, source: str = "events") -> Events:
    """Events from any four sequences of numbers, sorted by time where they are not.

    Args:
        t: microseconds.
        x, y: coordinates.
        p: polarity; what is > 0 is 1.
        source: what to call them in an error.

    Raises:
        DatasetError: lengths differ, or a number is not finite, no whole number or does not fit its column.
    """
    columns = [np.asarray(column).reshape(-1) for column in (t, x, y, p)]
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in zip(COLUMNS, columns, strict=True))
        raise DatasetError(f"{source}: the columns differ in length ({lengths})")
    for name, column in zip(COLUMNS, columns, strict=True):
        if column.dtype.kind not in "iufb":
            raise DatasetError(f"{source}: column {name} holds {column.dtype}; whole numbers are expected")
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            raise DatasetError(f"{source}: column {name} holds numbers that are not finite")
    return in_order(
        Events(
            _fitted(columns[0], "t", np.int64, source),
            _fitted(columns[1], "x", np.uint16, source),
            _fitted(columns[2], "y", np.uint16, source),
            (columns[3] > 0).astype(np.uint8),
        )
    )


def from_structured(array: np.ndarray, source: str = "events") -> Events:
    """Events from an array with the fields t, x, y, p, or their usual other names."""
    names = {column_name(name): name for name in array.dtype.names or ()}
    if missing := [name for name in COLUMNS if name not in names]:
        found = ", ".join(array.dtype.names or ()) or "no fields"
        raise DatasetError(f"{source}: lacks the field {missing[0]!r}; it has {found}")
    return make_events(*(array[names[name]] for name in COLUMNS), source=source)


def column_name(name: str) -> str:
    """The column that a field of another name holds: `t` for `timestamps`, say."""
    others = {"ts": "t", "timestamp": "t", "timestamps": "t", "time": "t", "pol": "p", "polarity": "p", "on": "p"}
    return others.get(name.lower(), name.lower())


def join(parts: Sequence[Events]) -> Events:
    """One after the other."""
    if not parts:
        return empty()
    return Events(*(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS))


def in_order(events: Events, in_place: bool = False) -> Events:
    """Sorted by time; events of the same moment keep their order. The same object when they are sorted already.

    Args:
        events: in any order.
        in_place: the columns are the caller's own and may be overwritten: half the memory.
    """
    t, count = events.t, len(events)
    if count < 2 or bool((t[1:] >= t[:-1]).all()):
        return events
    first, bits = int(t.min()), (count - 1).bit_length()
    if (int(t.max()) - first).bit_length() + bits > 62 or bits > 32:
        return events[np.argsort(t, kind="stable")]
    # Time and place in one number each: they are sorted where they stand, and none equals another.
    key = np.subtract(t, first, out=t if in_place else None)
    key <<= bits
    key |= np.arange(count, dtype=np.uint32)
    key.sort()
    order = np.empty(count, np.uint32)
    np.bitwise_and(key, (1 << bits) - 1, out=order, casting="unsafe")
    key >>= bits
    key += first
    return Events(key, *(_taken(column, order, in_place) for column in (events.x, events.y, events.p)))


def _taken(column: np.ndarray, order: np.ndarray, in_place: bool) -> np.ndarray:
    """`column[order]`, without a wide copy of all of `order`."""
    out = np.empty_like(column)
    for low in range(0, len(order), 1 << 18):
        part = slice(low, low + (1 << 18))
        out[part] = column[order[part]]
    if not in_place:
        return out
    column[:] = out
    return column


def check_inside(events: Events, sensor_size: tuple[int, int], source: str = "events") -> Events:
    """The events themselves.

    Raises:
        DatasetError: a coordinate lies outside the sensor `(H, W)`.
    """
    height, width = sensor_size
    if len(events) and (int(events.x.max()) >= width or int(events.y.max()) >= height):
        outside = np.flatnonzero((events.x >= width) | (events.y >= height))
        first = events[outside[:1]]
        raise DatasetError(
            f"{source}: {len(outside)} of {len(events)} events lie outside the sensor of H, W = {height}, {width}; "
            f"the first at t = {first.t[0]} µs, x = {first.x[0]}, y = {first.y[0]}. Is sensor_size right?"
        )
    return events


def unwrapped(t: np.ndarray, period: int, before: int = 0) -> np.ndarray:
    """Add a period wherever a counter of that many values falls by more than half of it.

    Args:
        t: counter values as int64, in file order.
        period: number of values of the counter.
        before: the last unwrapped value before these, for a file read in parts.

    Example:
        >>> unwrapped(np.array([250, 3, 9]), 256).tolist()
        [250, 259, 265]
    """
    if not len(t):
        return t
    steps = np.diff(t, prepend=before % period)
    if steps.max() <= period // 2 and steps.min() >= -(period // 2):
        return t + before // period * period
    # A jump of more than half a period upwards is a step back across the edge.
    turns = np.cumsum((steps < -(period // 2)).astype(np.int64) - (steps > period // 2))
    return t + (turns + before // period) * period


def _fitted(column: np.ndarray, name: str, kind: type, source: str) -> np.ndarray:
    if not len(column) or (column.dtype == kind and name != "t"):
        return column.astype(kind, copy=False)
    if column.dtype.kind == "f" and (broken := np.flatnonzero(column != np.rint(column))).size:
        remedy = "give times in microseconds" if name == "t" else "round or scale them before"
        raise DatasetError(
            f"{source}: column {name} must hold whole numbers; got {column[broken[0]]} at event {broken[0]} "
            f"({len(broken)} of {len(column)} are not whole): {remedy}"
        )
    low, high = int(column.min()), int(column.max())
    least, most = (-LONGEST_US, LONGEST_US) if name == "t" else (np.iinfo(kind).min, np.iinfo(kind).max)
    if low < least or high > most:
        remedy = ": give times in microseconds" if name == "t" else ""
        raise DatasetError(f"{source}: column {name} runs from {low} to {high}, beyond {least} .. {most}{remedy}")
    return column.astype(kind, copy=False)
