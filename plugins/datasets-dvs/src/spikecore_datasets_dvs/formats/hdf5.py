"""HDF5: the datasets t, x, y, p (or their usual other names) in a group, one compound dataset, or one `[N, 4]`.

They are looked for where known writers put them, and then everywhere; of several the user names one.

Needs h5py (`pip install spikecore-datasets-dvs[hdf5]`).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from spikecore.datasets import write_aside
from spikecore.errors import DatasetError, PluginUnavailable, SpikeError
from spikecore.files import read_file
from spikecore_datasets_dvs.columns import (
    agreed,
    column_of,
    from_matrix,
    from_structured,
    is_events,
    places,
    unit_called,
    unit_of,
)
from spikecore_datasets_dvs.events import COLUMNS, Events, Unit, make_events
from spikecore_datasets_dvs.formats.binary import opened
from spikecore_datasets_dvs.formats.hdf5_layouts import FILTERS, USUAL_PLACES, known_matrix, known_unit
from spikecore_datasets_dvs.reading import Reading, Sensor, Stated

MOST_MEMBERS = 1000
"""Of a group, that are looked at."""
OWN = "a file that holds all of its numbers itself is expected: copy them into one"


def open_file(path: Path) -> Any:
    """An h5py file.

    Raises:
        PluginUnavailable: h5py is not installed.
        DatasetError: this is no HDF5 file.
    """
    try:
        import h5py
    except ImportError as error:
        raise PluginUnavailable(
            "HDF5 files need h5py, which is not installed", "pip install 'spikecore-datasets-dvs[hdf5]'"
        ) from error
    with sound(path):
        return h5py.File(path, "r")


@contextmanager
def sound(path: Path, what: str = "") -> Iterator[None]:
    """Inside, whatever h5py raises (and it raises what it likes) is a DatasetError that names the file.

    Args:
        path: of the file.
        what: is read of it.
    """
    try:
        yield
    except (FileNotFoundError, MemoryError, SpikeError):
        raise
    except Exception as error:
        raise DatasetError(f"{path}: {what + ': ' if what else ''}is not a sound HDF5 file: {error}") from error


def stated(path: Path, reading: Reading) -> Stated:
    """Which layout, and the sensor's size where an attribute states it."""
    with opened(path):
        pass
    with open_file(path) as file, sound(path):
        place = _place(file, reading, str(path))
        size, where = _size(file, place)
        return Stated(f"HDF5, {place.name}{_called(place)}", size, where)


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a file."""
    with opened(path):
        pass
    with open_file(path) as file, sound(path):
        return _events(_place(file, reading, str(path)), reading, str(path))


def _events(place: Any, reading: Reading, source: str) -> Events:
    """The events of a group with the datasets t, x, y, p, of a compound dataset, or of one `[N, 4]`."""
    if not hasattr(place, "dtype"):
        where, named_unit = places(list(place), reading, source, "dataset")
        columns = [whole(_member(place, where[column], source), source) for column in COLUMNS]
        beside = _unit((place[where["t"]], place), reading, source) or known_unit(place.name, set(place.file.keys()))
        unit = unit_of(reading, agreed(named_unit, beside, source), source, columns[0])
        return make_events(*columns, source=source, unit=unit, on_values=reading.on_values)
    array, beside = whole(place, source), _unit((place, place.parent), reading, source)
    if array.dtype.names is not None:
        return from_structured(array, source, reading, beside or known_unit(place.name, set(place.file.keys())))
    layout = known_matrix(place.name, array.dtype)
    known, unit_there = (layout.columns, layout.unit) if layout else ("", None)
    return from_matrix(array, reading, f"{source}, {place.name}", known, agreed(unit_there, beside, source))


def _unit(holders: Sequence[Any], reading: Reading, source: str) -> Unit | None:
    """What an attribute `unit` or `units` of the first of these says.

    Raises:
        DatasetError: it says something else than a unit of time, and the user says none.
    """
    for holder in holders:
        for name in ("unit", "units"):
            value = holder.attrs.get(name)
            if value is None:
                continue
            value = value.reshape(-1)[0] if isinstance(value, np.ndarray) and value.size == 1 else value
            unit = unit_called(value)
            if unit is None and reading.unit == "auto":
                raise DatasetError(
                    f"{source}: the attribute {name!r} of {holder.name} says {str(value)[:40]!r}, which is none of s, "
                    'ms, us, ns: say what it means, as in unit = "us"'
                )
            return unit
    return None


def _place(file: Any, reading: Reading, source: str) -> Any:
    """The group or dataset with the events: the one that the user names, else one that a known writer makes.

    Raises:
        DatasetError: there is none, or several.
    """
    if reading.stream:
        return _walked(file, reading.stream, source)
    for name in USUAL_PLACES:
        parts = name.split("/")
        if parts[0] in file.keys() and (len(parts) == 1 or _holds(file, parts, source)):  # noqa: SIM118
            return _walked(file, name, source)
    if _is_group_of_events(file, reading):
        return file
    candidates = list(_candidates(file, reading, source))
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(place.name for place in candidates[:12])
        raise DatasetError(
            f'{source}: holds several recordings: {names}; name one, as in stream = "{candidates[0].name}"'
        )
    places(list(file), reading, source, "dataset")  # says what is missing
    raise DatasetError(f"{source}: holds no events; it has {', '.join(list(file)[:12]) or 'nothing'}")


def _holds(file: Any, parts: list[str], source: str) -> bool:
    group = _member(file, parts[0], source)
    return not hasattr(group, "dtype") and parts[1] in group.keys()  # noqa: SIM118  `in group` follows links


def _walked(file: Any, name: str, source: str) -> Any:
    """What a path means, link by link."""
    place = file
    for part in filter(None, name.split("/")):
        if hasattr(place, "dtype") or part not in place.keys():  # noqa: SIM118
            has = "" if hasattr(place, "dtype") else f"; {place.name} has {', '.join(list(place)[:12]) or 'nothing'}"
            raise DatasetError(f"{source}: has no {name!r}{has}")
        place = _member(place, part, source)
    return place


def _candidates(group: Any, reading: Reading, source: str, depth: int = 4) -> Iterator[Any]:
    """Whatever below a group holds events: groups, compounds, and arrays `[N, 4]` where their order is known."""
    for name in list(group)[:MOST_MEMBERS]:
        if hasattr(group.get(name, getlink=True), "filename"):
            continue  # a link into another file
        place = _member(group, name, source)
        if hasattr(place, "dtype"):
            is_matrix = len(place.shape or ()) == 2 and place.shape[1] == 4
            if is_events(place.dtype) or (is_matrix and known_matrix(place.name, place.dtype)):
                yield place
        elif _is_group_of_events(place, reading):
            yield place
        elif depth > 1:
            yield from _candidates(place, reading, source, depth - 1)


def _is_group_of_events(group: Any, reading: Reading) -> bool:
    names = set(group)
    known = {pair[0] for pair in map(column_of, names) if pair is not None}
    known |= {column for column, name in reading.own_names.items() if name in names}
    return known == set(COLUMNS)


def _called(place: Any) -> str:
    if not hasattr(place, "dtype"):
        return ""
    layout = known_matrix(place.name, place.dtype)
    return f" as {layout.writer} writes it" if layout else ""


def _size(file: Any, place: Any) -> tuple[Sensor | None, str]:
    """`(H, W)` from the attributes `geometry` (WxH), or `height` and `width`, of the file or the group."""
    for holder in (place, place.parent, file):
        attributes = holder.attrs
        geometry = attributes.get("geometry")
        geometry = geometry.decode("latin-1") if isinstance(geometry, bytes) else geometry
        if isinstance(geometry, str) and (match := re.fullmatch(r"\s*([0-9]{1,5})x([0-9]{1,5})\s*", geometry)):
            return (int(match[2]), int(match[1])), "the attribute geometry"
        sides = [attributes.get(name) for name in ("height", "width")]
        if all(isinstance(side, int | np.integer) and 0 < side < 1 << 16 for side in sides):
            return (int(sides[0]), int(sides[1])), "the attributes height and width"
    return None, ""


def _member(group: Any, name: str, source: str) -> Any:
    """What a name in a group means; a link into another file is not followed."""
    link = group.get(name, getlink=True)
    if hasattr(link, "filename"):
        raise DatasetError(f"{source}: {name!r} is a link to {link.filename!r}; {OWN}")
    return group[name]


def check_filters(dataset: Any, source: str) -> None:
    """Every filter that packed a dataset is at hand.

    Raises:
        PluginUnavailable: one is not; Metavision's files need the ECF codec.
    """
    from h5py import h5z

    plist = dataset.id.get_create_plist()
    for index in range(plist.get_nfilters()):
        number, _, _, name = plist.get_filter(index)
        if not h5z.filter_avail(number):
            called = name.decode("latin-1", errors="replace") or "without a name"
            cure = FILTERS.get(number, "install the filter as an HDF5 plugin (pip install hdf5plugin has many of them)")
            raise PluginUnavailable(f"{source}: {dataset.name} is packed with the filter {number} ({called})", cure)


def whole(dataset: Any, source: str) -> np.ndarray:
    """All of a dataset; never more than its file can hold."""
    if not hasattr(dataset, "shape") or dataset.dtype.hasobject:
        raise DatasetError(f"{source}: {dataset.name} is not an array of numbers")
    check_chunks(dataset, source)
    check_filters(dataset, source)
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > 1100 * max(stored, 1):
        raise DatasetError(f"{source}: {dataset.name} names {dataset.nbytes} bytes and holds {stored}: it is cut short")
    return np.asarray(dataset[...])


PROBE = """
import resource, sys
import h5py
_, most = resource.getrlimit(resource.RLIMIT_AS)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (limit if most < 0 else min(limit, most), most))
with h5py.File(sys.argv[1], "r") as file:
    for name in sys.argv[3:]:
        rows = file[name]
        for i in range(len(rows)):
            rows[i]
"""
LIMIT_BYTES = 4 << 30
LIMIT_S, LIMIT_S_PER_MB = 30.0, 5.0


def check_rows(path: Path, names: Sequence[str]) -> None:
    """Read all rows of varying length once in a process of its own.

    On a damaged heap, where such rows are kept, libhdf5 (2.0) crashes or never comes back, and nothing in this process
    could stop it. A file that passed is noted beside it, by size and time of change, and not read again.

    Args:
        path: of the file.
        names: of its datasets.

    Raises:
        DatasetError: they cannot be read.
    """
    found, note = path.stat(), path.with_name(f".{path.name}.read")
    state = f"{found.st_size} {found.st_mtime_ns} {' '.join(names)}"
    with suppress(OSError, ValueError):
        if read_file(note, 1 << 16).decode() == state:
            return
    command = [sys.executable, "-c", PROBE, str(path), str(LIMIT_BYTES + 4 * found.st_size), *names]
    limit_s = LIMIT_S + LIMIT_S_PER_MB * found.st_size / 1e6
    try:
        done = subprocess.run(command, capture_output=True, timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise DatasetError(f"{path}: is damaged: libhdf5 was not done with it after {limit_s:.0f} s") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it gave no reason"]
        why = said[0] if done.returncode > 0 else f"libhdf5 ended with signal {-done.returncode}"
        raise DatasetError(f"{path}: is damaged: its rows cannot be read: {why[:200]}; get it again")
    with suppress(DatasetError, OSError):  # where it cannot be noted it is read again next time
        write_aside(note, lambda aside: aside.write_text(state, encoding="utf-8") and None)


def check_chunks(dataset: Any, source: str) -> None:
    """Nothing is read that a dataset keeps in another file: that could be any file of whoever opens it.

    Nor is a chunk that is too short for its checksum of 4 bytes: libhdf5 (2.0) ends the process on it.

    Raises:
        DatasetError: there is one, or the numbers stand elsewhere.
    """
    if dataset.external or dataset.is_virtual or dataset.file.filename != source:
        raise DatasetError(f"{source}: {dataset.name} keeps its numbers in another file; {OWN}")
    if not dataset.fletcher32:
        return
    sizes: list[int] = []
    dataset.id.chunk_iter(lambda chunk: sizes.append(chunk.size))
    if sizes and min(sizes) <= 4:
        raise DatasetError(f"{source}: {dataset.name} has a chunk of {min(sizes)} bytes: the file is damaged")
