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
from typing import Any, Literal, TypeAlias

import numpy as np

from spikecore.errors import DatasetError

DTYPE = np.dtype([("t", "<i8"), ("x", "<u2"), ("y", "<u2"), ("p", "u1")])
"""The same four as one structured array, as it stands in `.npy` files."""
LONGEST_US = 1 << 61
"""How far times may be from 0 (73 000 years): sums and differences of two of them fit their column."""
LONGEST_NS = (1 << 63) - 501
"""The largest whole nanoseconds that still round in int64 (292 years)."""
SAY_THE_UNIT = 'give times in microseconds, or name their unit, as in unit = "s" (s, ms, us, ns)'
MOST_AT_ONCE = 32
"""Events at different times that may become those of one microsecond."""
COARSEST_US = 100.0
"""How far apart neighbouring float32 times may be: a second in float32 is exact to 60 ns, a day to 8 ms."""
Unit: TypeAlias = Literal["s", "ms", "us", "ns"]
UNITS: tuple[Unit, ...] = ("s", "ms", "us", "ns")
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


def make_events(
    t: Any,
    x: Any,
    y: Any,
    p: Any,
    source: str = "events",
    *,
    unit: Unit = "us",
    on_values: Sequence[int] = (),
) -> Events:
    """Events from any four sequences of numbers, sorted by time where they are not.

    Args:
        t: whole microseconds; or, with another `unit`, any numbers, which are rounded to microseconds. A column of 32
            bits that falls by more than half of its range has turned over, and is unwrapped.
        x, y: coordinates.
        p: polarity: 0 and 1, or -1 and 1 (0 beside both is OFF); any values with `on_values`.
        source: what to call them in an error.
        unit: of t.
        on_values: the values of p that mean ON; all others mean OFF.

    Raises:
        DatasetError: lengths differ, or a number is not finite, no whole number or does not fit its column, or the
            polarities follow no convention, or a column has more than one long dimension.
    """
    arrays = [np.asarray(column) for column in (t, x, y, p)]
    for name, array in zip(COLUMNS, arrays, strict=True):
        if array.ndim > 1 and array.size != max(array.shape):  # [N, 1] and MATLAB's [1, N] are columns
            raise DatasetError(
                f"{source}: column {name} has the shape {list(array.shape)}; one number per event, [N], is expected"
            )
    columns = [array.reshape(-1) for array in arrays]
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in zip(COLUMNS, columns, strict=True))
        raise DatasetError(f"{source}: the columns differ in length ({lengths})")
    for name, column in zip(COLUMNS, columns, strict=True):
        if column.dtype.kind not in "iufb":
            raise DatasetError(f"{source}: column {name} holds {column.dtype}; whole numbers are expected")
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            raise DatasetError(f"{source}: column {name} holds numbers that are not finite")
    times = in_microseconds(columns[0], unit, source)
    return in_order(
        Events(
            _fitted(times, "t", np.int64, source),
            _fitted(columns[1], "x", np.uint16, source),
            _fitted(columns[2], "y", np.uint16, source),
            polarities(columns[3], source, on_values),
        )
    )


def polarities(column: np.ndarray, source: str = "events", on_values: Sequence[int] = ()) -> np.ndarray:
    """1 for ON and 0 for OFF, uint8.

    Args:
        column: 0 and 1; or -1 and 1, with or without 0, which then is OFF. -1 and 0 alone follow neither.
        source: what to call it in an error.
        on_values: the values that mean ON, where these conventions do not hold.

    Raises:
        DatasetError: it holds other values.
    """
    if on_values:
        is_on = np.isin(column, list(on_values))
        if not is_on.any() and len(values := np.unique(column)) > 1:
            shown = ", ".join(f"{value:g}" for value in values[:6])
            raise DatasetError(f"{source}: on_values = {list(on_values)}, but the polarities are {shown}: none is ON")
        return is_on.astype(np.uint8)
    if column.dtype == bool:
        return column.view(np.uint8)
    if not len(column):
        return np.empty(0, np.uint8)
    low, high = column.min(), column.max()
    is_whole = column.dtype.kind != "f" or bool((column == np.rint(column)).all())
    is_halved = low == -1 and high == 0 and bool((column == 0).any())  # -1 beside 0, and nothing is ON
    if low >= -1 and high <= 1 and is_whole and not is_halved:
        return column if column.dtype == np.uint8 else (column == 1).astype(np.uint8)
    values, counts = np.unique(column, return_counts=True)
    shown = ", ".join(f"{value:g} ({count} times)" for value, count in zip(values[:6], counts[:6], strict=True))
    more = f" and {len(values) - 6} more values" if len(values) > 6 else ""
    raise DatasetError(
        f"{source}: the polarities are {shown}{more}; 0 and 1, or -1 and 1, are expected. Name the values that mean "
        f"ON: on_values = [{values[-1]:g}] makes every other one OFF"
    )


def in_microseconds(t: np.ndarray, unit: Unit, source: str = "events") -> np.ndarray:
    """Times in microseconds: as they are where that is their unit, else rounded, int64; with 32-bit turns undone.

    Raises:
        DatasetError: they fall as only a 32-bit counter does, but are kept in a wider column; or they leave int64.
    """
    t = _turns_undone(t, source)
    if unit == "us":
        return t
    if t.dtype.kind != "f" and unit == "ns":
        if len(t) and int(t.max()) > LONGEST_NS:
            raise DatasetError(f"{source}: times reach {int(t.max())} ns, beyond {LONGEST_NS}: is the unit right?")
        return (t.astype(np.int64) + 500) // 1000
    factor = {"s": 1_000_000, "ms": 1000, "ns": 0.001}[unit]
    largest = max(abs(float(t.min())), abs(float(t.max()))) if len(t) else 0.0
    if largest * factor > LONGEST_US:
        raise DatasetError(f"{source}: times reach {largest:g} {unit}, beyond {LONGEST_US} µs: is the unit right?")
    if t.dtype.kind != "f":
        return t.astype(np.int64) * np.int64(factor)
    if t.dtype.itemsize < 8 and np.spacing(t.dtype.type(largest)) * factor > COARSEST_US:
        raise DatasetError(
            f"{source}: times are {t.dtype} and reach {largest:g} {unit}, where neighbouring numbers are "
            f"{np.spacing(t.dtype.type(largest)) * factor:g} µs apart: store them as float64 or as whole microseconds"
        )
    scaled: np.ndarray = np.rint(t.astype(np.float64) * factor)
    if len(t) > MOST_AT_ONCE and scaled.min() == scaled.max() and t.min() < t.max():
        raise DatasetError(
            f"{source}: times run from {t.min():g} to {t.max():g}; as {unit}, all {len(t)} events are in one "
            "microsecond: is the unit right?"
        )
    return scaled.astype(np.int64)


def _turns_undone(t: np.ndarray, source: str) -> np.ndarray:
    """Times without the turns of a 32-bit counter; only a fall by more than half of its range is one."""
    half = 1 << 31
    if len(t) < 2 or t.dtype.kind not in "iuf" or float(t.max()) - float(t.min()) <= half:
        return t
    wide = t.astype(np.float64) if t.dtype == np.uint64 or t.dtype.kind == "f" else t.astype(np.int64)
    steps = np.diff(wide)
    falls = np.flatnonzero(steps < -half)
    if not len(falls):
        return t
    at = int(falls[0])
    if t.dtype.kind in "iu" and t.dtype.itemsize == 4:
        # A rise by more than half is a step back across the edge of a turn.
        turns = np.cumsum((steps < -half).astype(np.int64) - (steps > half))
        unwrapped_times: np.ndarray = wide.astype(np.int64)
        unwrapped_times[1:] += turns << 32
        return unwrapped_times
    if float(t.min()) >= 0 and float(t.max()) < 2 * half:
        raise DatasetError(
            f"{source}: times fall from {t[at]} to {t[at + 1]} at event {at + 1}, as a counter of 32 bits does when it "
            f"turns over, but they are stored as {t.dtype}: store them as uint32, which is unwrapped, or sort them"
        )
    return t


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
        remedy = SAY_THE_UNIT if name == "t" else "round or scale them before"
        raise DatasetError(
            f"{source}: column {name} must hold whole numbers; got {column[broken[0]]} at event {broken[0]} "
            f"({len(broken)} of {len(column)} are not whole): {remedy}"
        )
    low, high = int(column.min()), int(column.max())
    least, most = (-LONGEST_US, LONGEST_US) if name == "t" else (np.iinfo(kind).min, np.iinfo(kind).max)
    if low < least or high > most:
        remedy = f": {SAY_THE_UNIT}" if name == "t" else ""
        raise DatasetError(f"{source}: column {name} runs from {low} to {high}, beyond {least} .. {most}{remedy}")
    return column.astype(kind, copy=False)
