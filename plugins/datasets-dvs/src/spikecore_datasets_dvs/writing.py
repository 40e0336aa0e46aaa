"""Events back into files: `.npz`, which numpy and SpikingJelly read, and AEDAT 4, which DV reads.

    write_events("left.npz", events, sensor_size=(180, 240))
    write_events("left.aedat4", events, sensor_size=(180, 240))      needs the extra `dv`

A file is complete or absent, and replaces one of its name.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

from spikecore.datasets import writing
from spikecore.errors import DatasetError, OptionError, PluginUnavailable
from spikecore.files import write_with
from spikecore_datasets_dvs.events import COLUMNS, Events, check_inside
from spikecore_datasets_dvs.reading import Sensor

LARGEST_DV = 1 << 15
"""Coordinates in AEDAT 4 are signed 16-bit numbers."""


def write_events(path: str | Path, events: Events, sensor_size: Sensor, *, is_packed: bool = True) -> None:
    """Write a recording.

    Args:
        path: ends in `.npz` or `.aedat4`, which is the format.
        events: in time order.
        sensor_size: `(H, W)`; it is stated in the file, as is the unit of times; the coordinates are held against it.
        is_packed: compress an `.npz`; AEDAT 4 always is.

    Raises:
        DatasetError: an event lies outside the sensor, or its numbers do not fit the format, or the disk refuses.
        OptionError: the name ends in something else.
        PluginUnavailable: dv-processing is not installed.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise DatasetError(f"{path}: its directory is missing: make it before")
    if len(sensor_size) != 2 or min(sensor_size) < 1:
        raise OptionError(f"sensor_size must be (H, W), as in (180, 240); got {sensor_size!r}")
    check_inside(events, sensor_size, f"events for {path}")
    if len(events) > 1 and bool((np.diff(events.t) < 0).any()):
        raise DatasetError(f"events for {path} are not in order of time: sort them with make_events")
    if len(events) and int(events.p.max()) > 1:
        raise DatasetError(f"events for {path} have the polarity {int(events.p.max())}; 0 and 1 are expected")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        with writing(path):
            write_with(path, lambda aside: _write_npz(aside, events, sensor_size, is_packed))
    elif suffix == ".aedat4":
        with writing(path):
            write_with(path, lambda aside: _write_aedat4(aside, events, sensor_size))
    else:
        raise OptionError(f"{path}: events are written as .npz or .aedat4")


def _write_npz(path: Path, events: Events, sensor_size: Sensor, is_packed: bool) -> None:
    arrays = {name: getattr(events, name) for name in COLUMNS}
    save = np.savez_compressed if is_packed else np.savez
    with path.open("wb") as file:
        save(file, **arrays, sensor_size=np.array(sensor_size, np.int32), unit=np.array("us"))


def _write_aedat4(path: Path, events: Events, sensor_size: Sensor) -> None:
    height, width = sensor_size
    if max(sensor_size) > LARGEST_DV:
        raise DatasetError(f"AEDAT 4 holds coordinates below {LARGEST_DV}; the sensor is {height} × {width}")
    if len(events) and int(events.t[0]) < 0:
        raise DatasetError(
            f"AEDAT 4 holds no times below 0; the first is {int(events.t[0])} µs: add a time to all, or write .npz"
        )
    try:
        import dv_processing
    except ImportError as error:
        raise PluginUnavailable(
            "AEDAT 4 is written by dv-processing, which is not installed", "pip install 'spikecore-datasets-dvs[dv]'"
        ) from error
    with tempfile.TemporaryDirectory() as folder:  # the library wants a name that ends in .aedat4
        aside = Path(folder) / "events.aedat4"
        config = dv_processing.io.MonoCameraWriter.EventOnlyConfig("spikecore", (width, height))
        writer = dv_processing.io.MonoCameraWriter(str(aside), config)
        store = dv_processing.EventStore()
        for t, x, y, p in zip(*(getattr(events, name).tolist() for name in COLUMNS), strict=True):
            store.push_back(t, x, y, bool(p))
        writer.writeEvents(store)
        del writer  # closes the file
        shutil.copyfile(aside, path)
