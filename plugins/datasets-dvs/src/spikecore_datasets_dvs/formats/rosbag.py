"""ROS 1 bags: messages `EventArray` of dvs_msgs and prophesee_event_msgs; the package `rosbags` opens the bag.

`pip install spikecore-datasets-dvs[rosbag]`

message   uint32 sequence number, time, string frame; uint32 H, uint32 W, uint32 N; N events
event     13 bytes: uint16 x, uint16 y, uint32 seconds, uint32 nanoseconds, uint8 p

The definition in the bag is held against this before a byte is read. Times are those of the clock, in µs since 1970.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from spikecore.errors import DatasetError, PluginUnavailable, SpikeError
from spikecore_datasets_dvs.events import Events, empty, in_order, join, polarities
from spikecore_datasets_dvs.formats.binary import opened
from spikecore_datasets_dvs.reading import Reading, Sensor, Stated

EVENT = np.dtype([("x", "<u2"), ("y", "<u2"), ("s", "<u4"), ("ns", "<u4"), ("p", "u1")])
TYPE = re.compile(r"\w+/(msg/)?EventArray")
FIELDS = ["std_msgs/Header header", "uint32 height", "uint32 width"]
EVENT_FIELDS = ["uint16 x", "uint16 y", "time ts", "bool polarity"]


def stated(path: Path, reading: Reading) -> Stated:
    """Every message states the size of the sensor."""
    with _bag(path) as bag:
        connection = _chosen(bag, reading.stream, path)
        for _, _, raw in bag.messages([connection]):
            size, _ = _message(bytes(raw), path)
            return Stated(f"ROS 1 bag, {connection.topic} ({connection.msgtype})", size, "its messages")
        return Stated(f"ROS 1 bag, {connection.topic} ({connection.msgtype}), without a message")


def read(path: Path, reading: Reading = Reading()) -> Events:  # noqa: B008  frozen
    """The events of a topic.

    Raises:
        DatasetError: the bag is damaged, or has no events, or several topics of them.
        PluginUnavailable: rosbags is not installed.
    """
    parts = []
    with _bag(path) as bag:
        connection = _chosen(bag, reading.stream, path)
        for _, _, raw in bag.messages([connection]):
            _, events = _message(bytes(raw), path)
            t = events["s"].astype(np.int64) * 1_000_000 + (events["ns"].astype(np.int64) + 500) // 1000
            p = polarities(events["p"], str(path), reading.on_values)
            parts.append(Events(t, events["x"].astype(np.uint16), events["y"].astype(np.uint16), p.copy()))
    return in_order(join(parts)) if parts else empty()


@contextmanager
def _bag(path: Path) -> Iterator[Any]:
    with opened(path):
        pass
    try:
        from rosbags.rosbag1 import Reader
    except ImportError as error:
        raise PluginUnavailable(
            "ROS bags need the package rosbags, which is not installed",
            "pip install 'spikecore-datasets-dvs[rosbag]'",
        ) from error
    try:
        with Reader(path) as bag:
            yield bag
    except (SpikeError, OSError, MemoryError):
        raise
    except Exception as error:  # the package and its decompressors raise what they like
        raise DatasetError(f"{path}: is not a sound ROS 1 bag: {error}") from error


def _chosen(bag: Any, topic: str, path: Path) -> Any:
    """The connection with the events."""
    arrays = [connection for connection in bag.connections if TYPE.fullmatch(connection.msgtype)]
    matching = [connection for connection in arrays if topic in ("", connection.topic)]
    if len(matching) != 1:
        topics = ", ".join(f"{connection.topic} ({connection.msgtype})" for connection in bag.connections)
        what = "several topics of events" if len(matching) > 1 else "no topic of EventArray"
        asked = f" called {topic!r}" if topic else ""
        advice = f'; name one, as in stream = "{matching[0].topic}"' if matching else ""
        raise DatasetError(f"{path}: holds {what}{asked}; its topics: {topics or 'none'}{advice}")
    (connection,) = matching
    _check_definition(connection, path)
    return connection


def _check_definition(connection: Any, path: Path) -> None:
    definition = connection.msgdef
    text = str(getattr(definition, "data", definition))
    own, _, rest = text.partition("=" * 80)
    fields = [line.partition("#")[0].strip() for line in own.splitlines()]
    fields = [line for line in fields if line]
    package = connection.msgtype.partition("/")[0]
    wanted = [*FIELDS, f"{package}/Event[] events"]
    plain = [re.sub(r"^Header ", "std_msgs/Header ", line).replace("/msg/", "/") for line in fields]
    plain = [f"{package}/{line}" if line.startswith("Event[]") else line for line in plain]
    event = next((part for part in rest.split("=" * 80) if re.search(r"MSG:\s*\S*/Event\s*$", part, re.MULTILINE)), "")
    event_fields = [line.partition("#")[0].strip() for line in event.splitlines()]
    event_fields = [line for line in event_fields if line and not line.startswith("MSG:")]
    if plain != wanted or event_fields != EVENT_FIELDS:
        raise DatasetError(
            f"{path}: {connection.topic} has messages {connection.msgtype} with the fields {fields} and events with "
            f"{event_fields}; {wanted} with {EVENT_FIELDS} are read"
        )


def _message(raw: bytes, path: Path) -> tuple[Sensor, np.ndarray]:
    """The size of the sensor, and the events of a message."""
    try:
        (length,) = struct.unpack_from("<I", raw, 12)
        height, width, count = struct.unpack_from("<III", raw, 16 + length)
    except struct.error as error:
        raise DatasetError(f"{path}: a message is cut short: {error}") from error
    start = 28 + length
    if len(raw) - start != count * EVENT.itemsize:
        raise DatasetError(f"{path}: a message names {count} events and has {len(raw) - start} bytes for them")
    return (height, width), np.frombuffer(raw, EVENT, count, start)
