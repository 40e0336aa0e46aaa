"""Numpy files: `.npy` with a structured array, `.npz` with the arrays t, x, y, p (or one structured array).

No pickle: an array of objects is refused. The declared size is held against the file before memory is taken.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import COLUMNS, Events, column_name, from_structured, make_events

LARGEST_RATIO = 1100
"""Deflate packs at most about a thousand to one."""
PIECE = 1 << 18
"""Bytes read at a time."""


def read(path: Path) -> Events:
    """The events of a file."""
    source = str(path)
    if path.suffix.lower() == ".npy":
        array = read_npy(path)
        if array.dtype.names is None:
            raise DatasetError(f"{path}: holds {array.dtype} of shape {array.shape}, not events with t, x, y, p")
        return from_structured(array, source)
    arrays = read_npz(path)
    if len(arrays) == 1:
        (only,) = arrays.values()
        if only.dtype.names is not None:
            return from_structured(only, source)
    names = {column_name(name): array for name, array in arrays.items()}
    if missing := [name for name in COLUMNS if name not in names]:
        raise DatasetError(f"{path}: lacks the array {missing[0]!r}; it has {', '.join(arrays) or 'none'}")
    return make_events(*(names[name] for name in COLUMNS), source=source)


def read_npy(path: Path) -> np.ndarray:
    """The array of a `.npy` file."""
    with path.open("rb") as file:
        return _array(file, path.stat().st_size, str(path))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file, by name."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for item in archive.infolist():
                name = item.filename.removesuffix(".npy")
                if item.file_size > LARGEST_RATIO * max(item.compress_size, 1):
                    raise DatasetError(f"{path}: {item.filename!r} claims an impossible size")
                with archive.open(item) as file:
                    arrays[name] = _array(file, item.file_size, f"{path}, {item.filename!r}")
            return arrays
    except (OSError, MemoryError, DatasetError):
        raise
    except Exception as error:  # zipfile and its decoders raise what they like on damaged bytes
        raise DatasetError(f"{path}: is not a sound .npz file: {error}") from error


def _array(file: IO[bytes], size: int, source: str) -> np.ndarray:
    try:
        head = io.BytesIO(file.read(min(size, 1 << 16)))
        version = np.lib.format.read_magic(head)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(head, max_header_size=1 << 16)
        if dtype.hasobject:
            raise DatasetError(f"{source}: holds pickled objects, which could run any code: they are not read")
        count = 1
        for length in shape:
            count *= length
        wanted = count * dtype.itemsize
        if min(shape, default=0) < 0 or wanted != size - head.tell():
            raise DatasetError(
                f"{source}: names {wanted} bytes and holds {size - head.tell()}: it is cut short or damaged"
            )
        body = np.empty(wanted, np.uint8)
        filled = head.readinto(memoryview(body))
        while piece := file.read(PIECE):  # to the end, where a zip archive's checksum is compared
            body[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
        if filled != wanted:
            raise DatasetError(f"{source}: is cut short")
        return body.view(dtype).reshape(shape, order="F" if is_fortran else "C")
    except DatasetError:
        raise
    except Exception as error:  # numpy parses the header as Python source; a broken one raises what it likes
        raise DatasetError(f"{source}: is not a sound array: {error}") from error
