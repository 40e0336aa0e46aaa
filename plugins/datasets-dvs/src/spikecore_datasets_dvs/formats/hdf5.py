"""HDF5: the datasets t, x, y, p (or their usual other names), at the root or in the group `events`; or one compound.

Needs h5py (`pip install spikecore-datasets-dvs[hdf5]`).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from spikecore.datasets import write_aside
from spikecore.errors import DatasetError, PluginUnavailable, SpikeError
from spikecore_datasets_dvs.events import COLUMNS, Events, column_name, from_structured, make_events

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


def read(path: Path) -> Events:
    """The events of a file."""
    with open_file(path) as file, sound(path):
        return _events(file, str(path))


def _events(file: Any, source: str) -> Events:
    group = _member(file, "events", source) if "events" in file.keys() else file  # noqa: SIM118  `in file` follows links
    if hasattr(group, "dtype"):
        return from_structured(whole(group, source), source)
    names = {column_name(name): name for name in group}
    if missing := [name for name in COLUMNS if name not in names]:
        raise DatasetError(f"{source}: lacks the dataset {missing[0]!r}; it has {', '.join(group) or 'none'}")
    return make_events(*(whole(_member(group, names[name], source), source) for name in COLUMNS), source=source)


def _member(group: Any, name: str, source: str) -> Any:
    """What a name in a group means; a link into another file is not followed."""
    link = group.get(name, getlink=True)
    if hasattr(link, "filename"):
        raise DatasetError(f"{source}: {name!r} is a link to {link.filename!r}; {OWN}")
    return group[name]


def whole(dataset: Any, source: str) -> np.ndarray:
    """All of a dataset; never more than its file can hold."""
    if not hasattr(dataset, "shape") or dataset.dtype.hasobject:
        raise DatasetError(f"{source}: {dataset.name} is not an array of numbers")
    check_chunks(dataset, source)
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
        if note.read_text(encoding="utf-8") == state:
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
