"""Files of events, each format in a file of its own: `read(path) -> Events`, in time order.

Own readers are vectorised and read in chunks. What is damaged, cut short or of another format is a `DatasetError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import Events, check_inside


@dataclass(frozen=True)
class Format:
    """A file format.

    Args:
        suffixes: of file names.
        module: where `read` is.
        magic: how such a file begins, where a suffix is shared.
    """

    suffixes: tuple[str, ...]
    module: str
    magic: bytes = b""


FORMATS: dict[str, Format] = {
    "aedat2": Format((".aedat", ".aedat2"), "aedat2", b"#!AER-DAT2"),
    "aedat3": Format((".aedat", ".aedat3"), "aedat3", b"#!AER-DAT3"),
    "aedat4": Format((".aedat4",), "aedat4", b"#!AER-DAT4"),
    "atis": Format((".bin",), "atis"),
    "dat": Format((".dat",), "dat"),
    "evt": Format((".raw",), "evt"),
    "npz": Format((".npz",), "arrays"),
    "npy": Format((".npy",), "arrays"),
    "hdf5": Format((".h5", ".hdf5"), "hdf5"),
}

SUFFIXES = tuple(sorted({suffix for form in FORMATS.values() for suffix in form.suffixes}))


def read_events(
    path: str | Path, form: str = "auto", sensor_size: tuple[int, int] | None = None, aedat2_layout: str = "auto"
) -> Events:
    """The events of a file.

    Args:
        path: the file.
        form: a name in `FORMATS`; `auto` goes by the suffix, and by the first bytes where several share it.
        sensor_size: `(H, W)`; coordinates are held against it.
        aedat2_layout: of the addresses in AEDAT 2.0: `dvs128`, `davis`, or `auto`: that of the chip in the header.

    Raises:
        DatasetError: the file is missing, damaged, of another format, or has events outside the sensor.
        PluginUnavailable: its format needs a library that is not installed.
    """
    path = Path(path)
    with reading(path):
        events = reader(path, form, aedat2_layout, sensor_size[0] if sensor_size else 0)(path)
    return events if sensor_size is None else check_inside(events, sensor_size, str(path))


def reader(path: Path, form: str = "auto", aedat2_layout: str = "auto", height: int = 0) -> Callable[[Path], Events]:
    """The function that reads this file; `aedat2_layout` and `height` are for AEDAT 2.0."""
    if form == "auto":
        form = _recognised(path)
    if form not in FORMATS:
        raise DatasetError(f"no event format {form!r} (formats: {', '.join(FORMATS)})")
    read: Callable[[Path], Events] = import_module(f"{__name__}.{FORMATS[form].module}").read
    return partial(read, layout=aedat2_layout, height=height) if form == "aedat2" else read


def _recognised(path: Path) -> str:
    choices = [name for name, form in FORMATS.items() if path.suffix.lower() in form.suffixes]
    if not choices:
        raise DatasetError(f"{path}: no event format has the suffix {path.suffix!r} (suffixes: {', '.join(SUFFIXES)})")
    if len(choices) == 1:
        return choices[0]
    with path.open("rb") as file:
        head = file.read(16)
    for name in choices:
        if head.startswith(FORMATS[name].magic):
            return name
    return "aedat2"  # version 1 files and some of version 2 have no magic; the reader looks closer


class reading:
    """Turn the system's refusals to read a file into errors that name it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise DatasetError(f"{self.path}: is missing; it was there when the dataset was listed") from error
        if isinstance(error, OSError):
            raise DatasetError(f"{self.path}: cannot be read: {error}") from error
        if isinstance(error, MemoryError):
            raise DatasetError(f"{self.path}: does not fit into memory") from error
