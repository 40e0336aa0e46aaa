"""Recordings that cannot be read, left out of a split and listed: for large sets that nobody can get again.

Reading all of them takes as long as filling a cache; what came of it is kept beside the caches, under a name made of
the files, their sizes and times of change, of how they are read, and of this plugin's version.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from spikecore.datasets import data_dir, writing
from spikecore.errors import DatasetError
from spikecore.files import read_file, write_file

if TYPE_CHECKING:
    from spikecore_datasets_dvs.dataset import EventDataset, Recording

PACKAGE = "spikecore-datasets-dvs"
LARGEST = 1 << 28
SHOWN = 5


class Skipped(NamedTuple):
    """A recording that is left out.

    Args:
        path: of its file, relative to the dataset's directory.
        reason: why it cannot be read.
    """

    path: str
    reason: str


def readable(
    dataset: EventDataset, directory: Path, recordings: Sequence[Recording], split: str
) -> tuple[list[Recording], list[Skipped]]:
    """The recordings that can be read, and the others with the reasons; warns of these.

    Raises:
        DatasetError: none can be read.
    """
    note = data_dir() / dataset.name / "skipped" / f"{split}-{_key(dataset, directory, recordings)}.json"
    problems = _noted(note, len(recordings))
    if problems is None:
        problems = {}
        for number, recording in enumerate(recordings):
            try:
                dataset.read(directory, recording)
            except DatasetError as error:
                problems[number] = str(error)
        with writing(note):
            note.parent.mkdir(parents=True, exist_ok=True)
            write_file(note, json.dumps({"count": len(recordings), "problems": problems}, indent=1))
    skipped = [Skipped(recordings[number].path, reason) for number, reason in sorted(problems.items())]
    if len(skipped) == len(recordings) and skipped:
        raise DatasetError(
            f"{directory}: no recording of the split {split!r} can be read; the first: {skipped[0].reason}"
        )
    if skipped:
        shown = "; ".join(item.reason for item in skipped[:SHOWN])
        more = f"; … all in split.skipped and {note}" if len(skipped) > SHOWN else ""
        warnings.warn(
            f"{dataset.name}, {split}: {len(skipped)} of {len(recordings)} recordings cannot be read and are left out: "
            f"{shown}{more}",
            stacklevel=3,
        )
    return [recording for number, recording in enumerate(recordings) if number not in problems], skipped


def _noted(note: Path, count: int) -> dict[int, str] | None:
    """What an earlier pass found; None where there was none, or its note cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        kept = json.loads(read_file(note, LARGEST))
        problems = {int(number): str(reason) for number, reason in kept["problems"].items()}
        if kept["count"] == count and all(0 <= number < count for number in problems):
            return problems
    return None


def _key(dataset: EventDataset, directory: Path, recordings: Sequence[Recording]) -> str:
    # Another version may read what this one cannot, or refuse what it takes.
    about = [version(PACKAGE), str(directory.resolve()), dataset.reading_options(), list(dataset.sensor_size)]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for recording in recordings:
        try:
            identity = dataset.identity(directory, recording.path)
        except DatasetError:
            identity = b"missing"
        digest.update(repr(dataclasses.astuple(recording)).encode() + identity)
    return digest.hexdigest()[:20]
