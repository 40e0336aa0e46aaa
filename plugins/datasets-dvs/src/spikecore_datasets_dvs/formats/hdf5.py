"""HDF5: the datasets t, x, y, p (or their usual other names), at the root or in the group `events`; or one compound.

Needs h5py (`pip install spikecore-datasets-dvs[hdf5]`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spikecore.errors import DatasetError, PluginUnavailable
from spikecore_datasets_dvs.events import COLUMNS, Events, _plain, from_structured, make_events


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
    try:
        return h5py.File(path, "r")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise DatasetError(f"{path}: is not a sound HDF5 file: {error}") from error


def read(path: Path) -> Events:
    """The events of a file."""
    with open_file(path) as file:
        try:
            return _events(file, str(path))
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise DatasetError(f"{path}: is damaged: {error}") from error


def _events(file: Any, source: str) -> Events:
    group = file.get("events", file)
    if hasattr(group, "dtype"):
        return from_structured(_whole(group, source), source)
    names = {_plain(name): name for name in group}
    if missing := [name for name in COLUMNS if name not in names]:
        raise DatasetError(f"{source}: lacks the dataset {missing[0]!r}; it has {', '.join(group) or 'none'}")
    return make_events(*(_whole(group[names[name]], source) for name in COLUMNS), source=source)


def _whole(dataset: Any, source: str) -> np.ndarray:
    """All of a dataset; never more than its file can hold."""
    if not hasattr(dataset, "dtype") or dataset.dtype.hasobject:
        raise DatasetError(f"{source}: {dataset.name} is not an array of numbers")
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > 1100 * max(stored, 1):
        raise DatasetError(f"{source}: {dataset.name} names {dataset.nbytes} bytes and holds {stored}: it is cut short")
    return np.asarray(dataset[...])
