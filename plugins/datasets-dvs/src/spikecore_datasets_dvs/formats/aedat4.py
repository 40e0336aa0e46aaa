"""AEDAT 4: recordings of iniVation's DV, read by the library `aedat` or, where that is missing, by dv-processing.

`pip install spikecore-datasets-dvs[aedat4]`
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from spikecore.errors import DatasetError, PluginUnavailable
from spikecore_datasets_dvs.events import Events, in_order, join, make_events

MAGIC = b"#!AER-DAT4.0\r\n"


def read(path: Path) -> Events:
    """The events of a file."""
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
    if head != MAGIC:
        raise DatasetError(f"{path}: is not AEDAT 4: it begins with {head!r}")
    if find_spec("aedat"):
        return _with_aedat(path)
    if find_spec("dv_processing"):
        return _with_dv(path)
    raise PluginUnavailable(
        "AEDAT 4 files need the library aedat or dv-processing, and neither is installed",
        "pip install 'spikecore-datasets-dvs[aedat4]'",
    )


def _with_aedat(path: Path) -> Events:
    import aedat

    try:
        packets = [packet["events"] for packet in aedat.Decoder(str(path)) if "events" in packet]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # it has no error type of its own, and a panic of Rust is no Exception
        raise DatasetError(f"{path}: is damaged: {error}") from error
    return in_order(join([make_events(e["t"], e["x"], e["y"], e["on"], str(path)) for e in packets]))


def _with_dv(path: Path) -> Events:
    import dv_processing

    try:
        reader = dv_processing.io.MonoCameraRecording(str(path))
        parts = []
        while (store := reader.getNextEventBatch()) is not None:
            parts.append(np.asarray(store.numpy()))
    except Exception as error:  # bindings raise what they like
        raise DatasetError(f"{path}: is damaged: {error}") from error
    return in_order(
        join([make_events(e["timestamp"], e["x"], e["y"], e["polarity"], str(path)) for e in parts if len(e)])
    )
