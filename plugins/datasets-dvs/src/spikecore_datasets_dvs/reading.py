"""How a file of events is read: what its user says, where the file itself does not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from spikecore.errors import OptionError
from spikecore_datasets_dvs.events import COLUMNS, UNITS, Unit

Sensor: TypeAlias = tuple[int, int]
Layout: TypeAlias = Literal["auto", "dvs128", "davis", "dvxplorer", "dvs640"]
LAYOUTS: tuple[Layout, ...] = ("auto", "dvs128", "davis", "dvxplorer", "dvs640")
SKIPPED = "_"


@dataclass(frozen=True)
class Reading:
    """Options of `read_events`; each that is left out comes from the file, or its absence is an error that names it.

    Args:
        form: file format; `auto` goes by the first bytes, and by the suffix where a format has none of its own.
        sensor_size: `(H, W)`; None where the file states it, or where nobody asks.
        aedat2_layout: of the addresses in AEDAT 2.0: `dvs128`, `davis`, `dvxplorer`, `dvs640`; `auto`: that of the chip
            which the file's header names.
        stream: which of several recordings in one file: the name of an AEDAT 4 stream (or `source/name`), the path of a
            group or dataset in HDF5, the name of an array in an `.npz`, the topic of a ROS bag.
        columns: order of the columns of an array `[N, 4]` or of a text without a heading: `txyp`, or `xypt`, with `_`
            for every column to pass over.
        names: names of the columns where a file has its own, as in `t=stamp, x=col, y=row, p=sign`.
        unit: of times: `s`, `ms`, `us`, `ns`; `auto`: what the file says: its format, the name of a column, or an
            attribute or array `unit`.
        on_values: the values of polarity that mean ON, where they are not 0 and 1, or -1 and 1.
        allow_empty: take recordings without a single event; by default they are errors, since a copy or a conversion
            that broke off is the usual reason.
    """

    form: str = "auto"
    sensor_size: Sensor | None = None
    aedat2_layout: Layout = "auto"
    stream: str = ""
    columns: str = ""
    names: str = ""
    unit: Unit | Literal["auto"] = "auto"
    on_values: tuple[int, ...] = ()
    allow_empty: bool = False

    def __post_init__(self) -> None:
        for name, problem in _wrong_types(self):
            raise OptionError(f"'{name}' {problem}")
        for name, problem in problems(dataclasses.asdict(self)):
            raise OptionError(f"'{name}' {problem}")

    @property
    def own_names(self) -> dict[str, str]:
        """Column → its name in the file, as `names` says."""
        return parse_names(self.names)


def _wrong_types(reading: Reading) -> Iterator[tuple[str, str]]:
    """Options of another type than theirs; from Python anything may come."""
    for name in ("form", "aedat2_layout", "stream", "columns", "names", "unit"):
        value = getattr(reading, name)
        if not isinstance(value, str):
            yield name, f"must be a string; got {value!r}"
    if not isinstance(reading.allow_empty, bool):
        yield "allow_empty", f"must be True or False; got {reading.allow_empty!r}"
    on = reading.on_values
    if not isinstance(on, list | tuple) or not all(isinstance(value, int | float | np.number) for value in on):
        yield "on_values", f"must be numbers, as in (1,); got {on!r}"
    size = reading.sensor_size
    is_size = isinstance(size, list | tuple) and len(size) == 2
    if size is not None and not (is_size and all(isinstance(side, int | np.integer) and side > 0 for side in size)):
        yield "sensor_size", f"must be (H, W), as in (180, 240); got {size!r}"


def problems(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with options of `Reading`: `(option, text)`."""
    wrong = []
    columns = options["columns"]
    if columns and sorted(columns.replace(SKIPPED, "")) != sorted(COLUMNS):
        wrong.append(("columns", f"must have each of t, x, y, p once, and _ for others, as in 'txyp'; got {columns!r}"))
    if options["unit"] not in ("auto", *UNITS):
        wrong.append(("unit", f"must be one of auto, {', '.join(UNITS)}; got {options['unit']!r}"))
    if options["aedat2_layout"] not in LAYOUTS:
        wrong.append(("aedat2_layout", f"must be one of {', '.join(LAYOUTS)}; got {options['aedat2_layout']!r}"))
    try:
        parse_names(options["names"])
    except OptionError as error:
        wrong.append(("names", str(error)))
    return wrong


def parse_names(text: str) -> dict[str, str]:
    """`{"t": "stamp", "x": "col"}` from `t=stamp, x=col`.

    Raises:
        OptionError: it has another form.
    """
    names: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([txyp])\s*=\s*(.+)", part)
        if match is None or match[1] in names:
            raise OptionError(f"must read as in 't=stamp, x=col, y=row, p=sign', each at most once; got {part!r}")
        names[match[1]] = match[2]
    return names


@dataclass(frozen=True)
class Stated:
    """What a file says of itself.

    Args:
        variant: format and version, in words.
        sensor_size: `(H, W)`; None where the file does not state it.
        where: the sensor's size stands.
    """

    variant: str
    sensor_size: Sensor | None = None
    where: str = ""
