"""Numpy files: `.npy` with a structured array, `.npz` with the arrays t, x, y, p, or one structured array among others.

Arrays `[N, 4]` are read where the user says the order of their columns.

No pickle: an array of objects is refused. The declared size is held against the file before memory is taken.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.columns import from_matrix, from_named, from_structured, is_events, unit_called
from spikecore_datasets_dvs.events import Events, Unit
from spikecore_datasets_dvs.formats.binary import opened
from spikecore_datasets_dvs.reading import Reading, Stated

SIZE, UNIT = "sensor_size", "unit"
"""Arrays beside the events, as `write_events` leaves them."""
LARGEST_RATIO = 1100
"""Deflate packs at most about a thousand to one."""
BASE_BYTES, MOST_RATIO = 1 << 30, 100
"""All arrays of a file together may unpack to so many bytes, and to so many times the file besides."""
PIECE = 1 << 18
"""Bytes read at a time."""


def stated(path: Path, reading: Reading) -> Stated:
    """An `.npz` states the sensor where it has an array `sensor_size`, as `write_events` leaves it."""
    if not _is_npz(path):
        return Stated("numpy .npy")
    size = read_npz(path, only=SIZE).get(SIZE)
    if (
        size is None
        or size.shape != (2,)
        or size.dtype.kind not in "iu"
        or not (size > 0).all()
        or size.max() >= 1 << 16
    ):
        return Stated("numpy .npz")
    return Stated("numpy .npz", (int(size[0]), int(size[1])), f"the array {SIZE}")


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a file."""
    source = str(path)
    if not _is_npz(path):
        return _of_array(read_npy(path), reading, source)
    arrays = read_npz(path)
    unit = _unit(arrays, reading, source)
    if reading.stream:
        if reading.stream not in arrays:
            raise DatasetError(f"{path}: has no array {reading.stream!r}; it has {', '.join(arrays) or 'none'}")
        return _of_array(arrays[reading.stream], reading, f"{path}, {reading.stream!r}", unit)
    structured = [name for name, array in arrays.items() if is_events(array.dtype)]
    if len(structured) == 1:
        return from_structured(arrays[structured[0]], source, reading, unit)
    if structured:
        raise DatasetError(
            f'{path}: {", ".join(structured)} hold events each; name one, as in stream = "{structured[0]}"'
        )
    others = [array for name, array in arrays.items() if name not in (SIZE, UNIT)]
    if len(others) == 1 and (others[0].dtype.names is not None or others[0].ndim == 2):
        return _of_array(others[0], reading, source, unit)
    return from_named(arrays, reading, source, unit)


def _of_array(array: np.ndarray, reading: Reading, source: str, unit: Unit | None = None) -> Events:
    if array.dtype.names is not None:
        return from_structured(array, source, reading, unit)
    return from_matrix(array, reading, source, known_unit=unit)


def _unit(arrays: dict[str, np.ndarray], reading: Reading, source: str) -> Unit | None:
    """What the array `unit` says, which holds one string.

    Raises:
        DatasetError: it says something else than a unit, and the user says none.
    """
    array = arrays.get(UNIT)
    if array is None or array.size != 1 or array.dtype.kind not in "US":
        return None
    unit = unit_called(array.reshape(-1)[0].item())
    if unit is None and reading.unit == "auto":
        raise DatasetError(
            f"{source}: its array {UNIT!r} says {array.reshape(-1)[0].item()!r}, which is none of s, ms, us, ns: say "
            'what it means, as in unit = "us"'
        )
    return unit


def _is_npz(path: Path) -> bool:
    with opened(path) as file:
        head = file.read(6)
    return path.suffix.lower() == ".npz" if head[:2] != b"PK" and head != b"\x93NUMPY" else head[:2] == b"PK"


def read_npy(path: Path) -> np.ndarray:
    """The array of a `.npy` file."""
    with opened(path) as file:
        return _array(file, path.stat().st_size, str(path))


def read_npz(path: Path, only: str = "") -> dict[str, np.ndarray]:
    """The arrays of a `.npz` file, by name; or the one of this name alone."""
    try:
        with opened(path) as raw, zipfile.ZipFile(raw) as archive:
            arrays = {}
            left = BASE_BYTES + MOST_RATIO * path.stat().st_size
            for item in archive.infolist():
                name = item.filename.removesuffix(".npy")
                if only and name != only:
                    continue
                if item.file_size > LARGEST_RATIO * max(item.compress_size, 1):
                    raise DatasetError(f"{path}: {item.filename!r} claims an impossible size")
                left -= item.file_size
                if left < 0:
                    raise DatasetError(
                        f"{path}: its arrays unpack to more than {BASE_BYTES} bytes and {MOST_RATIO} times the file: "
                        "it was made to fill the memory; if it is yours, save it with numpy.savez, which does not pack"
                    )
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
