"""Bullying10K's `.npy` files hold pickled lists: they are read by an unpickler that knows lists, numbers and arrays.

A pickle names what it wants to be made of. Here nothing but the four names of a numpy array is known, and each of them
is a stand-in of ours that checks sizes before it takes memory; no constructor of numpy or Python sees the file. The
unpickler is the one written in Python: the one in C fills memory up to any number that a file names.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events, make_events
from spikecore_datasets_dvs.formats.binary import opened


class _Dtype:
    """Stands for numpy.dtype: plain numbers and objects only."""

    def __init__(self, code: str, *_: Any) -> None:
        if not isinstance(code, str):  # its text may be long without end: lists can name each other again and again
            raise DatasetError(f"holds an array of {type(code).__name__}; numbers were expected")
        if not re.fullmatch(r"O8?|b1|[iuf][1248]", code):
            raise DatasetError(f"holds an array of {code[:20]!r}; numbers were expected")
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = {"<": "<", ">": ">"}.get(state[1], "|")

    @property
    def dtype(self) -> np.dtype:
        """Its numpy counterpart; not for objects."""
        return np.dtype(("" if self.order == "|" else self.order) + self.code)


class _Array:
    """Stands for an array that is about to get its content."""

    content: Any = ()

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, is_fortran, raw = state
        is_shape = isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)
        if not isinstance(kind, _Dtype) or not is_shape:  # a list times a number would be that many times as long
            raise DatasetError("holds an array that is damaged")
        count = math.prod(shape)
        if kind.code.startswith("O"):
            if not isinstance(raw, list) or len(raw) != count:
                raise DatasetError("holds an array that is damaged")
            self.content = raw
        else:
            if not isinstance(raw, bytes) or len(raw) != count * kind.dtype.itemsize:
                raise DatasetError("holds an array that is damaged")
            self.content = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if is_fortran else "C")


def _scalar(kind: Any, raw: Any) -> Any:
    if not isinstance(kind, _Dtype) or not isinstance(raw, bytes) or len(raw) != kind.dtype.itemsize:
        raise DatasetError("holds a number that is damaged")
    return np.frombuffer(raw, kind.dtype)[0].item()


KNOWN: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Dtype,
}


OPCODES = frozenset(
    getattr(pickle, name)[0]
    for name in [
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "MEMOIZE",
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "GET",
        "BINGET",
        "LONG_BINGET",
        "EMPTY_LIST",
        "LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "FLOAT",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "GLOBAL",
        "STACK_GLOBAL",
        "REDUCE",
        "BUILD",
    ]
)
"""What lists of numbers, and arrays of them, are written with. Others take memory as a file asks (BYTEARRAY8)."""


def _refused(_: Any) -> None:
    raise DatasetError("has an operation that no list of numbers needs")


def _build(reader: Any) -> None:
    """BUILD sets attributes of whatever it is given; here it is for the two stand-ins, which have `__setstate__`."""
    if len(reader.stack) < 2 or type(reader.stack[-2]) not in (_Dtype, _Array):
        raise DatasetError("sets the state of something other than an array")
    pickle._Unpickler.load_build(reader)  # type: ignore[attr-defined]


class _Restricted(pickle._Unpickler):  # type: ignore[name-defined]
    dispatch = {  # noqa: RUF012  (the base class has it so)
        code: load if code in OPCODES else _refused
        for code, load in pickle._Unpickler.dispatch.items()  # type: ignore[attr-defined]
    } | {pickle.BUILD[0]: _build}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise DatasetError(f"wants {module}.{name}, which no list of events needs")
        return KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise DatasetError("wants an object from outside the file")


def _load(path: Path) -> tuple[Any, int]:
    """The object in a `.npy` file of objects, and the size of the file."""
    with opened(path) as file:
        raw = file.read()
    try:
        stream = io.BytesIO(raw)
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = read(stream)
        if not dtype.hasobject:
            raise DatasetError("holds no objects")
        return _Restricted(stream).load(), len(raw)
    except DatasetError as error:
        raise DatasetError(f"{path}: is refused: it {error}") from error
    except Exception as error:  # a broken header or pickle raises what it likes
        raise DatasetError(f"{path}: is damaged: {error}") from error


def _repeated(path: Path, size: int) -> DatasetError:
    return DatasetError(
        f"{path}: holds a list within itself, or the same rows over and over: at most {size // 4} rows were expected "
        f"of {size} bytes; get the archive again"
    )


def read(path: Path) -> Events:
    """Events `(t, x, y, p)` from lists of lists of them, however deep.

    Raises:
        DatasetError: the file is damaged, or wants anything but lists, numbers and arrays.
    """
    content, size = _load(path)
    rows: list[Any] = []
    stack = [content]
    num_items = 1
    while stack:
        item = stack.pop()
        item = item.content if isinstance(item, _Array) else item
        if isinstance(item, np.ndarray):
            if item.ndim != 2 or item.shape[1] != 4:
                raise DatasetError(f"{path}: holds an array {item.shape}; rows of t, x, y, p were expected")
            if len(item) > size // 4 - len(rows):
                raise _repeated(path, size)
            rows.extend(reversed(item.tolist()))
        elif not isinstance(item, list | tuple):
            raise DatasetError(f"{path}: holds a {type(item).__name__}; rows of t, x, y, p were expected")
        elif len(item) == 4 and all(isinstance(number, int | float) for number in item):
            rows.append(item)
        else:
            # Whatever is written once takes a byte at least, and a row four; more than that is named again and again.
            num_items += len(item)
            if num_items > size:
                raise _repeated(path, size)
            stack.extend(item)
    if len(rows) > size // 4:
        raise _repeated(path, size)
    rows.reverse()  # a stack gives the last first
    try:
        columns = np.array(rows, np.float64).reshape(-1, 4).T
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{path}: holds a number that is out of range: {error}") from error
    return make_events(*columns, source=str(path))
