"""Columns with names, and arrays `[N, 4]`: which is t, x, y and p, and in what unit the times are.

A name says both where it is one of the usual ones: `t`, `timestamps`, `ts_us`, `time [s]`, `pol` …  Any other name, the
order of an array without names and a unit that no name states are the user's to say (`names`, `columns`, `unit`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.conversion import converted
from spikecore_datasets_dvs.events import COLUMNS, UNITS, Events, Unit, make_events
from spikecore_datasets_dvs.reading import Reading

USUAL = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
NAME = re.compile(r"([a-z]+?)(?:[\s_]*[(\[]\s*(s|ms|us|µs|ns)\s*[)\]]|[\s_]+(s|ms|us|µs|ns)|(ms|us|µs|ns)|[\s_]*)")
"""A lone s directly behind a word is its plural, not seconds."""
WORDS: dict[str, Unit] = {
    **{unit: unit for unit in UNITS},
    "µs": "us",
    "μs": "us",
    "usec": "us",
    "msec": "ms",
    "nsec": "ns",
    "sec": "s",
    "second": "s",
    "millisecond": "ms",
    "microsecond": "us",
    "nanosecond": "ns",
}
"""Units as files spell them; a plural s may follow."""
SECONDS: dict[Unit, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
DEFAULT = Reading()
SAY_THE_UNIT = 'Say it, as in unit = "us" (s, ms, us, ns)'
FEWEST_STEPS = 32
"""Of times, from which on their order is judged."""


def column_of(name: str) -> tuple[str, Unit | None] | None:
    """`("t", "us")` of `timestamp_us`, `("x", None)` of `x`; None of a name that is not a usual one."""
    lower = name.strip().lower()
    for column, others in USUAL.items():
        if lower in others:
            return column, None
    match = NAME.fullmatch(lower)
    if match is None or match[1] not in USUAL["t"]:
        return None
    unit = next(filter(None, match.groups()[1:]), "").replace("µ", "u")
    return "t", next((known for known in UNITS if known == unit), None)  # `t_` states none


def places(
    names: Sequence[str], reading: Reading, source: str, what: str = "column"
) -> tuple[dict[str, str], Unit | None]:
    """Where t, x, y and p are among these names: column → name; and the unit that the name of t states.

    Raises:
        DatasetError: one is not there, or two names mean the same.
    """
    own = reading.own_names
    where: dict[str, str] = {}
    unit: Unit | None = None
    for column, name in own.items():
        if name not in names:
            raise DatasetError(f"{source}: has no {what} {name!r}, which 'names' gives for {column}; {_listed(names)}")
        where[column] = name
        known = column_of(name)
        if column == "t" and known is not None:
            unit = known[1]
    for name in names:
        known = column_of(name)
        if known is None or name in own.values() or known[0] in own:
            continue
        if known[0] in where:
            raise DatasetError(
                f"{source}: both {where[known[0]]!r} and {name!r} mean {known[0]}: say which, as in "
                f'names = "{known[0]}={name}"'
            )
        where[known[0]] = name
        unit = known[1] or unit
    if missing := [column for column in COLUMNS if column not in where]:
        raise DatasetError(
            f"{source}: lacks the {what} {missing[0]!r}; {_listed(names)}. Where it has a name of its own, give it, as "
            f'in names = "{missing[0]}={next(iter(names), "name")}"'
        )
    return where, unit


def _listed(names: Sequence[str]) -> str:
    more = f" … {len(names)} in all" if len(names) > 12 else ""
    return f"it has {', '.join(names[:12]) or 'none'}{more}"


def unit_of(reading: Reading, stated: Unit | None, source: str, t: np.ndarray) -> Unit:
    """The unit of times: the user's, or the one that the file states.

    Args:
        reading: of the user.
        stated: by the file; None where it states none.
        source: what to call it in an error.
        t: the times, or the first and the last of them.

    Raises:
        DatasetError: nobody says it, or the two differ.
    """
    if reading.unit == "auto":
        if stated is None and len(t):
            raise DatasetError(f"{source}: does not state the unit of times; {_durations(t)}. {SAY_THE_UNIT}")
        return stated or "us"  # without an event there is nothing to misread
    if stated is not None and stated != reading.unit:
        raise DatasetError(f"{source}: states times in {stated}, and unit = {reading.unit!r} was given: which is it?")
    return reading.unit


def _durations(t: np.ndarray) -> str:
    """From where to where times go, and how long that is in every unit."""
    if t.dtype.kind not in "iuf":
        return f"they are {t.dtype}"
    first, last = t.min(), t.max()
    if first == last:
        return f"the only one is {first}"
    span = float(last) - float(first)
    lengths = [f"{span * seconds:.4g} s if they are in {unit}" for unit, seconds in SECONDS.items()]
    return f"they run from {first} to {last}: {', '.join(lengths)}"


def unit_called(text: object) -> Unit | None:
    """The unit that an attribute or an array `unit` names: `us`, `µs`, `microseconds`, `[s]` …; None of any other."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    if not isinstance(text, str):
        return None
    word = text.strip(" []()\0").lower()
    return WORDS.get(word) or WORDS.get(word.removesuffix("s"))


def from_named(
    arrays: Mapping[str, np.ndarray], reading: Reading, source: str, known_unit: Unit | None = None
) -> Events:
    """Events from arrays of these names.

    Raises:
        DatasetError: see `places` and `make_events`.
    """
    where, stated = places(list(arrays), reading, source, "array")
    columns = [arrays[where[column]] for column in COLUMNS]
    unit = unit_of(reading, agreed(stated, known_unit, source), source, columns[0])
    return make_events(*columns, source=source, unit=unit, on_values=reading.on_values)


def from_structured(
    array: np.ndarray, source: str = "events", reading: Reading = DEFAULT, known_unit: Unit | None = None
) -> Events:
    """Events from an array with the fields t, x, y, p, or their usual other names."""
    names = array.dtype.names or ()
    where, stated = places(names, reading, source, "field")
    columns = [array[where[column]] for column in COLUMNS]
    unit = unit_of(reading, agreed(stated, known_unit, source), source, columns[0])
    return make_events(*columns, source=source, unit=unit, on_values=reading.on_values)


def agreed(by_name: Unit | None, beside: Unit | None, source: str) -> Unit | None:
    """The unit that a column's name states, or what the file says beside it.

    Raises:
        DatasetError: the two differ.
    """
    if by_name is not None and beside is not None and by_name != beside:
        raise DatasetError(
            f"{source}: the name of its times says {by_name}, and the file says {beside} beside it: which is it? Give "
            f'the column, as in names = "t=…", or write the file anew'
        )
    return by_name or beside


def from_matrix(
    array: np.ndarray, reading: Reading, source: str, known: str = "", known_unit: Unit | None = None
) -> Events:
    """Events from an array `[N, 4]` (or wider), a row each.

    Args:
        array: the rows.
        reading: `columns` says their order.
        source: what to call it in an error.
        known: the order, where the layout of the file is one of a known writer.
        known_unit: the unit of its times.

    Raises:
        DatasetError: it has another shape, or nobody says the order.
    """
    order = reading.columns or known
    if array.ndim != 2 or array.shape[1] < 4 or array.dtype.kind not in "iuf":
        raise DatasetError(
            f"{source}: holds {array.dtype} of shape {list(array.shape)}; fields t, x, y, p or numbers [N, 4] are "
            "expected"
        )
    if not order:
        first = array[0].tolist() if len(array) else "none"
        raise DatasetError(
            f"{source}: is an array {list(array.shape)} without names; its first row is {first}. Say what its columns "
            f'are, as in columns = "txyp" (with _ for columns to pass over), and the unit of times, as in unit = "us"'
        )
    if len(order) != array.shape[1]:
        raise DatasetError(f"{source}: has {array.shape[1]} columns, and columns = {order!r} names {len(order)}")
    unit = unit_of(reading, known_unit, source, array[:, order.index("t")])
    check_rising(array[:, order.index("t")], f"{source}, with columns = {order!r}")
    if not reading.on_values and (events := converted(array, order, unit)) is not None:
        return events
    columns = [array[:, order.index(column)] for column in COLUMNS]
    return make_events(*columns, source=source, unit=unit, on_values=reading.on_values)


def check_rising(t: np.ndarray, source: str) -> None:
    """Times go back now and then (two sensors one after the other, packets out of order), but not at every other event.

    Coordinates do; so this tells a column of coordinates that was named t by mistake.

    Raises:
        DatasetError: more than a quarter of at least `FEWEST_STEPS` steps go back.
    """
    if len(t) <= FEWEST_STEPS:
        return
    num_falls = int(np.count_nonzero(t[1:] < t[:-1]))
    if 4 * num_falls > len(t) - 1:
        raise DatasetError(
            f"{source}: what is taken for times goes back {num_falls} times in {len(t)} events, beginning with "
            f'{t[:4].tolist()}: is this the right column? Name the order, as in columns = "xytp"; or sort the events'
        )


def is_events(dtype: np.dtype) -> bool:
    """Whether an array of this dtype has the fields t, x, y and p under usual names."""
    known = {pair[0] for pair in map(column_of, dtype.names or ()) if pair is not None}
    return known == set(COLUMNS)
