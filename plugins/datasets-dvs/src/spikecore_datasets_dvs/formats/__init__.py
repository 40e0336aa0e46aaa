"""Files of events, each format in a file of its own: `read(path, reading) -> Events`, in time order.

Own readers are vectorised and read in chunks. What is damaged, cut short or of another format is a `DatasetError`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from spikecore.errors import DatasetError, OptionError
from spikecore_datasets_dvs.events import Events, check_inside
from spikecore_datasets_dvs.formats.binary import opened
from spikecore_datasets_dvs.formats.table import FORMATS, SUFFIXES, Format
from spikecore_datasets_dvs.reading import Reading, Sensor, Stated

__all__ = ["FORMATS", "SUFFIXES", "Format", "read_events", "read_file", "reading_errors", "recognised", "stated"]


class FormatModule(Protocol):
    """A module of this package."""

    def read(self, path: Path, reading: Reading) -> Events:
        """The events of a file."""

    def stated(self, path: Path, reading: Reading) -> Stated:
        """What a file says of itself, without reading its events."""


def read_events(path: str | Path, form: str = "auto", sensor_size: Sensor | None = None, **options: object) -> Events:
    """The events of a file.

    Args:
        path: the file.
        form: a name in `FORMATS`; `auto` goes by the first bytes, and by the suffix where several share them.
        sensor_size: `(H, W)`; coordinates are held against it, or else against the size that the file states.
        options: others of `spikecore_datasets_dvs.reading.Reading`: `aedat2_layout`, `stream`, `columns`, `names`,
            `unit`, `on_values`, `allow_empty`.

    Raises:
        DatasetError: the file is missing, damaged, of another format, leaves open what an option has to say, has no
            events, or has some outside the sensor.
        OptionError: an option is wrong.
        PluginUnavailable: its format needs a library that is not installed.
    """
    if unknown := [name for name in options if name not in Reading.__dataclass_fields__]:
        raise OptionError(f"no option {unknown[0]!r}; there are {', '.join(Reading.__dataclass_fields__)}")
    path, reading = Path(path), Reading(form=form, sensor_size=sensor_size, **options)  # type: ignore[arg-type]
    events = read_file(path, reading)
    size = stated(path, reading).sensor_size if sensor_size is None else None
    return events if size is None else check_inside(events, size, f"{path} (it states this size)")


def read_file(path: Path, reading: Reading) -> Events:
    """The events of a file, held against the size of the sensor where that is known."""
    with reading_errors(path):
        form = recognised(path, reading.form)
        events = _module(form).read(path, reading)
    if not len(events) and not reading.allow_empty:
        raise DatasetError(
            f"{path}: holds no events, though it is read as {form}: was it recorded or converted to the end? "
            "allow_empty = true takes recordings without events"
        )
    return events if reading.sensor_size is None else check_inside(events, reading.sensor_size, str(path))


def stated(path: Path, reading: Reading = Reading()) -> Stated:  # noqa: B008  frozen
    """What a file says of itself: its variant, and the size of the sensor.

    Raises:
        DatasetError, PluginUnavailable: as `read_events`.
    """
    with reading_errors(path):
        return _module(recognised(path, reading.form)).stated(path, reading)


def recognised(path: Path, form: str = "auto") -> str:
    """The name of a file's format.

    Raises:
        DatasetError: it is of none, or `form` is none.
        OSError: it cannot be read.
    """
    if form != "auto":
        if form not in FORMATS:
            raise DatasetError(f"no event format {form!r} (formats: {', '.join(FORMATS)})")
        return form
    suffix = path.suffix.lower()
    by_suffix = [name for name, row in FORMATS.items() if suffix in row.suffixes]
    with opened(path) as file:
        head = file.read(16)
    for name, row in FORMATS.items():
        # Beginnings of a few bytes are no proof: other zip archives than .npz have those of a zip archive.
        if row.magic and head.startswith(row.magic) and (len(row.magic) > 2 or name in by_suffix):
            return name
    if not by_suffix:
        raise DatasetError(f"{path}: no event format has the suffix {path.suffix!r} (suffixes: {', '.join(SUFFIXES)})")
    return by_suffix[0]  # of .aedat, version 1 and some of version 2 have no magic; the reader looks closer


def _module(form: str) -> FormatModule:
    return cast(FormatModule, import_module(f"{__name__}.{FORMATS[form].module}"))


class reading_errors:
    """Turn the system's refusals to read a file into errors that name it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise DatasetError(
                f"{self.path}: is missing; is the name right, or was it moved since it was listed?"
            ) from error
        if isinstance(error, OSError):
            raise DatasetError(f"{self.path}: cannot be read: {error}") from error
        if isinstance(error, MemoryError):
            raise DatasetError(f"{self.path}: does not fit into memory") from error
