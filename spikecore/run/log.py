"""`metrics.jsonl`: one JSON object per line, appended while the run goes on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikecore.errors import CheckpointError

FILE = "metrics.jsonl"
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
        with self._path.open("ab") as file:
            file.write(line)
        self._bytes += len(line)
        self._sum.update(line)

    def position(self) -> dict[str, Any]:
        """Length and SHA-256 of the file so far, which is on disk when this returns."""
        if self._path.is_file():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
        return {"bytes": self._bytes, "sha256": self._sum.hexdigest()}

    def check(self, position: Mapping[str, Any]) -> None:
        """Verify that the file begins with what it held at `position`.

        Raises:
            CheckpointError: it is shorter, or other lines are there.
        """
        data = self._path.read_bytes() if self._path.is_file() else b""
        head = data[: position["bytes"]]
        if len(head) < position["bytes"] or hashlib.sha256(head).hexdigest() != position["sha256"]:
            raise CheckpointError(
                f"{self._path}: does not begin with the {position['bytes']} bytes that were there when the checkpoint "
                "was written: it was edited or damaged; put the file back, or resume from an earlier checkpoint"
            )

    def restore(self, position: Mapping[str, Any]) -> int:
        """Drop the lines that were written after `position`; returns their number."""
        self.check(position)
        data = self._path.read_bytes() if self._path.is_file() else b""
        head, tail = data[: position["bytes"]], data[position["bytes"] :]
        if tail:
            with self._path.open("rb+") as file:
                file.truncate(len(head))
                os.fsync(file.fileno())
        self._bytes, self._sum = len(head), hashlib.sha256(head)
        return len(tail.splitlines())


def read_lines(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run; a last line that a crash cut short is left out."""
    path = directory / FILE
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            lines.append(value)
    return lines


def finite(value: Any) -> Any:
    """The value itself; None for a number that JSON cannot write."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
