"""AEDAT 4: recordings of iniVation's DV, read by the library `aedat` or, where that is missing, by dv-processing.

`pip install spikecore-datasets-dvs[aedat4]`

A file may hold several streams of events: raw and filtered ones, or those of two cameras. The header lists them, in
XML. Read is the only one, else the only one that is called `events`, else the one that `stream` names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from spikecore.errors import DatasetError, PluginUnavailable
from spikecore_datasets_dvs.events import Events, in_order, join, make_events
from spikecore_datasets_dvs.formats.binary import opened
from spikecore_datasets_dvs.reading import Reading, Sensor, Stated

MAGIC = b"#!AER-DAT4.0\r\n"
MAX_HEADER = 1 << 20
DESCRIPTION = re.compile(rb"<dv\b.*?</dv>", re.DOTALL)


@dataclass(frozen=True)
class Stream:
    """A stream of events.

    Args:
        number: in the file.
        name: as in `events`.
        source: camera or module that it comes from.
        sensor_size: `(H, W)`; None where the header does not state it.
    """

    number: int
    name: str
    source: str
    sensor_size: Sensor | None

    @property
    def title(self) -> str:
        """What tells it from the others."""
        return f"{self.source}/{self.name}" if self.source else self.name


def stated(path: Path, reading: Reading) -> Stated:
    """The header states the sensor's size for each stream."""
    streams = _streams(path)
    stream = _chosen(streams, reading.stream, path)
    others = [other.title for other in streams if other is not stream]
    more = f" (others: {', '.join(others)})" if others else ""
    size = stream.sensor_size
    return Stated(f"AEDAT 4, stream {stream.title}{more}", size, "the header" if size else "")


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a file.

    Raises:
        DatasetError: the file is damaged, or holds several streams and nobody says which.
        PluginUnavailable: no library that reads it is installed.
    """
    stream = _chosen(_streams(path), reading.stream, path)
    if find_spec("aedat"):
        return _with_aedat(path, stream)
    if find_spec("dv_processing"):
        return _with_dv(path, stream)
    raise PluginUnavailable(
        "AEDAT 4 files need the library aedat or dv-processing, and neither is installed",
        "pip install 'spikecore-datasets-dvs[aedat4]'",
    )


def _streams(path: Path) -> list[Stream]:
    """The streams of events that the header lists."""
    with opened(path) as file:
        head = file.read(MAX_HEADER)
    if not head.startswith(MAGIC):
        raise DatasetError(f"{path}: is not AEDAT 4: it begins with {head[: len(MAGIC)]!r}")
    match = DESCRIPTION.search(head)
    if match is None or b"<!" in match[0]:
        raise DatasetError(f"{path}: is damaged: its header lists no streams")
    try:
        root = ElementTree.fromstring(match[0])
    except ElementTree.ParseError as error:
        raise DatasetError(f"{path}: is damaged: its list of streams cannot be read: {error}") from error
    streams = []
    for node in root.iterfind("node[@name='outInfo']/node"):
        values = {attribute.get("key"): attribute.text or "" for attribute in node.iterfind("attr")}
        info = {attribute.get("key"): attribute.text or "" for attribute in node.iterfind("node[@name='info']/attr")}
        number = node.get("name", "")
        if values.get("typeIdentifier") != "EVTS" or not number.isdecimal():
            continue
        sides = [
            int(side) for side in (info.get("sizeY", ""), info.get("sizeX", "")) if re.fullmatch("[0-9]{1,5}", side)
        ]
        size = (sides[0], sides[1]) if len(sides) == 2 and min(sides) > 0 else None
        streams.append(Stream(int(number), values.get("originalOutputName", ""), info.get("source", ""), size))
    if not streams:
        raise DatasetError(f"{path}: holds no stream of events")
    return streams


def _chosen(streams: list[Stream], name: str, path: Path) -> Stream:
    if name:
        matching = [stream for stream in streams if name in (stream.title, stream.name)]
    else:
        matching = streams if len(streams) == 1 else [stream for stream in streams if stream.name == "events"]
    if len(matching) == 1:
        return matching[0]
    titles = ", ".join(stream.title for stream in streams)
    asked = f"stream = {name!r} means {len(matching)} of its streams" if name else "it holds several streams of events"
    raise DatasetError(f'{path}: {asked}: {titles}; name one, as in stream = "{streams[0].title}"')


def _with_aedat(path: Path, stream: Stream) -> Events:
    import aedat

    try:
        packets = [
            packet["events"]
            for packet in aedat.Decoder(str(path))
            if "events" in packet and packet["stream_id"] == stream.number
        ]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # it has no error type of its own, and a panic of Rust is no Exception
        raise DatasetError(f"{path}: is damaged: {error}") from error
    return in_order(join([make_events(e["t"], e["x"], e["y"], e["on"], str(path)) for e in packets]))


def _with_dv(path: Path, stream: Stream) -> Events:
    import dv_processing

    try:
        source = (stream.source,) if stream.source else ()
        reader = dv_processing.io.MonoCameraRecording(str(path), *source)
        parts = []
        while (store := reader.getNextEventBatch(stream.name)) is not None:
            parts.append(np.asarray(store.numpy()))
    except Exception as error:  # bindings raise what they like
        raise DatasetError(f"{path}: is damaged: {error}") from error
    return in_order(
        join([make_events(e["timestamp"], e["x"], e["y"], e["polarity"], str(path)) for e in parts if len(e)])
    )
