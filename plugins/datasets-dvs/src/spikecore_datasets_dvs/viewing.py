"""What `spike view FILE` and `spike info format` show of files of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikecore.errors import DatasetError, OptionError
from spikecore.interfaces import FileFormat, RecordingView
from spikecore_datasets_dvs.events import check_inside
from spikecore_datasets_dvs.formats import FORMATS, SUFFIXES, read_file, stated
from spikecore_datasets_dvs.frames import bounds_by_time, count_frames
from spikecore_datasets_dvs.reading import Reading, Sensor
from spikecore_datasets_dvs.statistics import statistics

MOST_PIXELS = 1 << 24


@dataclass(frozen=True)
class EventFiles:
    """Reads the files of `formats`."""

    def formats(self) -> Sequence[FileFormat]:
        """The table of formats."""
        return [
            FileFormat(
                name=name,
                title=row.title,
                suffixes=row.suffixes,
                facts=(
                    ("sensor size", row.size or "not stated: give sensor_size"),
                    ("unit of times", row.unit),
                    ("options", ", ".join(row.options) or "none needed"),
                    ("needs", f"pip install 'spikecore-datasets-dvs[{row.extra}]'" if row.extra else "nothing further"),
                ),
            )
            for name, row in FORMATS.items()
        ]

    def takes(self, path: Path) -> bool:
        """Whether the suffix is one of these formats."""
        return path.suffix.lower() in SUFFIXES

    def view(self, path: Path, options: Mapping[str, Any], num_steps: int) -> RecordingView:
        """One recording.

        Args:
            path: of the file.
            options: of `Reading`.
            num_steps: of the picture.

        Raises:
            DatasetError, OptionError, PluginUnavailable: it cannot be read.
        """
        reading = _reading(options)
        own = stated(path, reading)
        events = read_file(path, reading)
        size, where = reading.sensor_size or own.sensor_size, own.where
        if reading.sensor_size:
            where = "as given"
        if size is None:
            size = (int(events.y.max()) + 1, int(events.x.max()) + 1) if len(events) else (1, 1)
            where = "the largest coordinates; the file does not state it"
        if size[0] * size[1] > MOST_PIXELS:
            raise DatasetError(
                f"{path}: its events fill {size[0]} × {size[1]} pixels, more than any sensor: is this the right "
                "format, and are these the right columns? (--set form=…, --set columns=…)"
            )
        check_inside(events, size, f"{path} ({where})")
        figures = statistics(events, size)
        first, last = (int(events.t[0]), int(events.t[-1])) if len(events) else (0, 0)
        y, x, most = figures.busiest
        lines = [
            ("format", own.variant),
            ("sensor", f"{size[0]} × {size[1]} pixels (H × W): {where}"),
            ("events", f"{figures.num_events:,}"),
            ("duration", f"{figures.duration_us / 1e6:.6g} s, from {first} to {last} µs"),
            ("rate", f"{figures.rate_hz / 1000:.4g} thousand events/s"),
            ("polarity", f"{figures.share_on:.1%} ON"),
            ("pixels", f"{figures.share_active:.1%} with events; the busiest (x = {x}, y = {y}) has {most:,}"),
        ]
        frames = count_frames(events, bounds_by_time(events, num_steps), size)
        return RecordingView(tuple(lines), frames)


def _reading(options: Mapping[str, Any]) -> Reading:
    known = {name: value for name, value in options.items() if name in Reading.__dataclass_fields__}
    if unknown := [name for name in options if name not in known]:
        raise OptionError(
            f"a file has no option {unknown[0]!r}; it has {', '.join(Reading.__dataclass_fields__)} (spike info format)"
        )
    if "sensor_size" in known:
        known["sensor_size"] = _size(known["sensor_size"])
    if "on_values" in known:
        known["on_values"] = tuple(np.atleast_1d(known["on_values"]).tolist())
    for name in ("form", "aedat2_layout", "stream", "columns", "names", "unit"):
        if name in known and not isinstance(known[name], str):
            raise OptionError(f"'{name}' must be a string, got {known[name]!r}")
    if not isinstance(known.get("allow_empty", False), bool):
        raise OptionError(f"'allow_empty' must be true or false, got {known['allow_empty']!r}")
    return Reading(**known)


def _size(value: Any) -> Sensor | None:
    if value == "auto":
        return None
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(side, int) for side in value)
    if not is_pair or not all(0 < side < 1 << 16 for side in value):
        raise OptionError(f"'sensor_size' must be 'auto' or [H, W], as in [180, 240]; got {value!r}")
    return value[0], value[1]
