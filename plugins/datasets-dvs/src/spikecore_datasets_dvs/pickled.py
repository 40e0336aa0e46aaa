"""Bullying10K's `.npy` files hold pickled lists: they are read by an unpickler that knows lists, numbers and arrays.

A pickle names what it wants to be made of; whatever is not in `ALLOWED` is refused before it is called.
"""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events, make_events

ALLOWED = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0] for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): np.int64(0).__reduce__()[0] for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise DatasetError(f"wants {module}.{name}, which no list of events needs") from None

    def persistent_load(self, pid: Any) -> Any:
        raise DatasetError("wants an object from outside the file")


def load(path: Path) -> Any:
    """The object in a `.npy` file of objects.

    Raises:
        DatasetError: it is damaged, or wants anything but lists, numbers and arrays.
    """
    raw = path.read_bytes()
    try:
        stream = io.BytesIO(raw)
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = read(stream)
        if not dtype.hasobject:
            raise DatasetError("holds no objects")
        return _Restricted(stream).load()
    except DatasetError as error:
        raise DatasetError(f"{path}: is refused: it {error}") from error
    except (
        pickle.UnpicklingError,
        ValueError,
        TypeError,
        EOFError,
        AttributeError,
        IndexError,
        KeyError,
        struct.error,
        OverflowError,
        MemoryError,
        ImportError,
        SyntaxError,
        RecursionError,
    ) as error:
        raise DatasetError(f"{path}: is damaged: {error}") from error


def read(path: Path) -> Events:
    """Events `(t, x, y, p)` from lists of lists of them, however deep."""
    rows: list[Any] = []
    stack = [load(path)]
    while stack:
        item = stack.pop()
        if isinstance(item, np.ndarray) and item.dtype != object:
            if item.ndim != 2 or item.shape[1] != 4:
                raise DatasetError(f"{path}: holds an array {item.shape}; rows of t, x, y, p were expected")
            rows.extend(reversed(item.tolist()))
        elif isinstance(item, list | tuple | np.ndarray):
            if len(item) == 4 and all(isinstance(number, int | float | np.number) for number in item):
                rows.append(item)
            else:
                stack.extend(item.tolist() if isinstance(item, np.ndarray) else item)
        else:
            raise DatasetError(f"{path}: holds a {type(item).__name__}; rows of t, x, y, p were expected")
    rows.reverse()  # a stack gives the last first
    columns = np.array(rows, np.float64).reshape(-1, 4).T
    return make_events(columns[0].astype(np.int64), *columns[1:], source=str(path))
