"""Whole arrays of numbers to columns of events, in pieces that stay in a cache: one pass over the array.

What a piece cannot show to be right is left to `make_events`, which looks at the whole and says what is wrong.
"""

from __future__ import annotations

import numpy as np

from spikecore_datasets_dvs.events import COLUMNS, LONGEST_US, Events, Unit, in_order

PIECE = 1 << 13
"""Rows converted at a time."""
SCALE: dict[Unit, float] = {"s": 1e6, "ms": 1e3, "us": 1.0}


def converted(rows: np.ndarray, order: str, unit: Unit) -> Events | None:
    """The events of an array `[N, k]`, in time order; None where a number is not plainly right.

    Args:
        rows: whole numbers or floats of 4 or 8 bytes.
        order: of its columns, with `_` for those that are passed over.
        unit: of times; nanoseconds are not converted here.
    """
    if unit not in SCALE or rows.dtype.kind not in "iuf" or rows.dtype.itemsize not in (4, 8):
        return None
    if rows.dtype == np.uint64 or (rows.dtype == np.float32 and unit != "us"):
        return None
    out = Events(*(np.empty(len(rows), kind) for kind in COLUMNS.values()))
    t, x, y, p = (order.index(name) for name in COLUMNS)
    for low in range(0, len(rows), PIECE):
        part = slice(low, min(low + PIECE, len(rows)))
        piece = rows[part]
        with np.errstate(invalid="ignore"):  # NaN, and floats beyond the integers: seen by comparing
            is_right = (
                _times(piece[:, t], unit, out.t[part])
                and _coordinates(piece[:, x], out.x[part])
                and _coordinates(piece[:, y], out.y[part])
                and _polarities(piece[:, p], out.p[part])
            )
        if not is_right:
            return None
    if len(rows) and not out.p.any() and int(rows[:, p].min()) < int(rows[:, p].max()):
        return None  # -1 and 0, of which neither is ON
    if len(rows) > 1 and int(np.diff(out.t).min()) < -(1 << 31) * int(SCALE[unit]):
        return None  # perhaps a counter that turned over
    return in_order(out, in_place=True)


def _times(column: np.ndarray, unit: Unit, out: np.ndarray) -> bool:
    if column.dtype.kind != "f":
        scale = int(SCALE[unit])
        most = LONGEST_US // scale
        if column.dtype.itemsize == 8 and not (column.min() >= -most and column.max() <= most):
            return False
        np.multiply(column, scale, out=out, dtype=np.int64)
        return True
    values = column.astype(np.float64) if unit == "us" else np.rint(column * SCALE[unit])
    if not (float(values.min()) >= -LONGEST_US and float(values.max()) <= LONGEST_US):  # NaN is neither
        return False
    np.copyto(out, values, casting="unsafe")
    return unit != "us" or bool((out == values).all())


def _coordinates(column: np.ndarray, out: np.ndarray) -> bool:
    np.copyto(out, column, casting="unsafe")  # what does not fit comes out as another number
    return bool((out == column).all())


def _polarities(column: np.ndarray, out: np.ndarray) -> bool:
    small = column.astype(np.int8)
    np.equal(small, 1, out=out, casting="unsafe")
    return bool((small == column).all()) and -1 <= int(small.min()) <= int(small.max()) <= 1
