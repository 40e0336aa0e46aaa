"""`metrics.jsonl`: one JSON object per line, appended while the run goes on."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikecore.documents import parse_json
from spikecore.errors import CheckpointError
from spikecore.files import cure, open_to_append, read_file

FILE = "metrics.jsonl"
MOST_BYTES = 1 << 33
EMPTY: Mapping[str, Any] = {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}


class MetricsLog:
    """Appends lines, and goes back to an earlier length when a run is resumed.

    Args:
        directory: the run directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._bytes = 0
        self._sum = hashlib.sha256()

    def append(self, values: Mapping[str, float | int | str]) -> None:
        """Write one line; a number that is not finite becomes null, since JSON has none.

        Raises:
            OSError: the disk refused.
        """
        line = (json.dumps({name: finite(value) for name, value in values.items()}) + "\n").encode()
        with os.fdopen(open_to_append(self._path), "ab") as file:
            file.write(line)
        self._bytes += len(line)
        self._sum.update(line)

    def position(self) -> dict[str, Any]:
        """Length and SHA-256 of the file so far, which is on disk when this returns."""
        if self._path.is_file():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
        return {"bytes": self._bytes, "sha256": self._sum.hexdigest()}

    def content(self) -> bytes:
        """All lines so far.

        Raises:
            OSError: the file cannot be read, or does not hold what was written to it.
        """
        data = self._data()[: self._bytes]
        if hashlib.sha256(data).digest() != self._sum.digest():
            raise OSError(errno.EIO, "it no longer holds what this run wrote to it", str(self._path))
        return data

    def _data(self) -> bytes:
        return read_file(self._path, MOST_BYTES) if self._path.exists() or self._path.is_symlink() else b""

    def check(self, position: Mapping[str, Any]) -> None:
        """Verify that the file begins with what it held at `position`.

        Raises:
            CheckpointError: it is shorter, or other lines are there.
        """
        try:
            data = self._data()
        except OSError as error:
            raise CheckpointError(f"{self._path}: cannot be read: {cure(error)}") from error
        head = data[: position["bytes"]]
        if len(head) < position["bytes"] or hashlib.sha256(head).hexdigest() != position["sha256"]:
            raise CheckpointError(
                f"{self._path}: does not begin with the {position['bytes']} bytes that were there when the checkpoint "
                "was written: it was edited or damaged; put the file back, or resume from an earlier checkpoint"
            )

    def restore(self, position: Mapping[str, Any]) -> int:
        """Drop the lines that were written after `position`; returns their number."""
        self.check(position)
        data = self._data()
        head, tail = data[: position["bytes"]], data[position["bytes"] :]
        if tail:
            with os.fdopen(open_to_append(self._path), "ab") as file:
                file.truncate(len(head))
                os.fsync(file.fileno())
        self._bytes, self._sum = len(head), hashlib.sha256(head)
        return len(tail.splitlines())


def read_lines(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run; a last line that a crash cut short is left out."""
    path = directory / FILE
    lines = []
    is_there = path.is_file() and not path.is_symlink()
    text = read_file(path, MOST_BYTES).decode(errors="replace") if is_there else ""
    for line in text.splitlines():
        try:
            value = parse_json(line, most_bytes=MOST_BYTES)
        except ValueError:
            continue
        if isinstance(value, dict):
            lines.append(value)
    return lines


def finite(value: Any) -> Any:
    """The value itself; None for a number that JSON cannot write."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
