"""What the readers of binary files share: header lines, whole records in chunks, columns filled in place."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from spikecore.errors import DatasetError
from spikecore_datasets_dvs.events import COLUMNS, Events, in_order, unwrapped

CHUNK = 1 << 18
"""Records read at a time: their temporaries fit a cache, and memory stays near that of the result."""
MAX_HEADER = 1 << 20
TEXT = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open to be read; links are followed, since data often lie elsewhere.

    Raises:
        DatasetError: it is a pipe, a device or a socket, which could block for ever, or it is empty.
        OSError: it is a directory, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if stat.S_ISDIR(state.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(state.st_mode):
            raise DatasetError(f"{path}: is a pipe or a device; a regular file is expected")
        if state.st_size == 0:
            raise DatasetError(f"{path}: has 0 bytes; was it copied to the end? Get it again")
        yield file


def header(file: BinaryIO, mark: bytes, path: Path, end: bytes = b"") -> list[bytes]:
    """The lines of plain text at the front that begin with `mark`, without it; the file stands behind them afterwards.

    Data may begin with the mark as well, but hardly go on as text; a file that says where its header ends is believed.

    Args:
        file: at its beginning.
        mark: how every line begins.
        path: of the file, for errors.
        end: what the last line says behind the mark, where the format has such a line; files without it are read too.

    Raises:
        DatasetError: the header has no end.
    """
    lines: list[bytes] = []
    total = 0
    while True:
        at = file.tell()
        line = file.readline(MAX_HEADER)
        total += len(line)
        if not line.startswith(mark) or not TEXT.fullmatch(line.rstrip()):
            file.seek(at)
            return lines
        if not line.endswith(b"\n") or total > MAX_HEADER:
            raise DatasetError(f"{path}: its header is cut short or has no end")
        lines.append(line[len(mark) :].rstrip())
        if end and lines[-1].strip() == end:
            return lines


def left(file: BinaryIO) -> int:
    """Bytes from here to the end."""
    at = file.tell()
    end = file.seek(0, 2)
    file.seek(at)
    return end - at


def num_records(file: BinaryIO, size: int, path: Path) -> int:
    """How many records of `size` bytes follow.

    Raises:
        DatasetError: the last one is cut short.
    """
    count, rest = divmod(left(file), size)
    if rest:
        raise DatasetError(
            f"{path}: the last event has {rest} of {size} bytes: the file is cut short or of another kind"
        )
    return count


def chunks(
    file: BinaryIO, dtype: str | np.dtype, count: int, path: Path, width: int = 1, most: int = 1 << 30
) -> Iterator[np.ndarray]:
    """`count` records of `width` numbers, as arrays `[n, width]` (`[n]` for a width of 1), at most `most` at a time."""
    kind = np.dtype(dtype)
    while count:
        wanted = min(count, CHUNK, most)
        got = np.frombuffer(file.read(wanted * width * kind.itemsize), kind)
        if len(got) != wanted * width:
            raise DatasetError(f"{path}: became shorter while it was read")
        yield got.reshape(wanted, width) if width > 1 else got
        count -= wanted


def check_timed(count: int, most: int, path: Path) -> None:
    """Most events have a time.

    Args:
        count: events with a time.
        most: events in the file.
        path: of it, for the error.

    Raises:
        DatasetError: most come before any word that says the time.
    """
    if 2 * count < most:
        raise DatasetError(
            f"{path}: of {most} events {most - count} have no time, since no word before them holds its high bits: the "
            "file is damaged or of another version"
        )


def last_marked(
    marks: np.ndarray, values: np.ndarray, before: int, known: bool, period: int
) -> tuple[np.ndarray, int, bool]:
    """At each place the last value that was marked (unwrapped), -1 before the first; and what holds at the end."""
    places = np.flatnonzero(marks)
    if not len(places):
        return np.full(len(marks), before if known else -1, np.int64), before, known
    moments = values[places]
    moments = unwrapped(moments, period, before if known else int(moments[0]))
    held = np.concatenate([[before if known else -1], moments])
    return held[np.cumsum(marks)], int(moments[-1]), True


class Columns:
    """Events that are filled in from the front, into memory taken once.

    Args:
        capacity: the most events there can be.
    """

    def __init__(self, capacity: int) -> None:
        self.arrays = {name: np.empty(capacity, kind) for name, kind in COLUMNS.items()}
        self.count = 0

    def room(self, count: int) -> Events:
        """The next `count` places, to write into."""
        place = slice(self.count, self.count + count)
        self.count += count
        return Events(*(array[place] for array in self.arrays.values()))

    def put(self, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> None:
        """Append; each is cast to its column."""
        room = self.room(len(t))
        room.t[:], room.x[:], room.y[:], room.p[:] = t, x, y, p

    def events(self) -> Events:
        """What was filled in, in time order."""
        return in_order(Events(*(array[: self.count] for array in self.arrays.values())), in_place=True)
