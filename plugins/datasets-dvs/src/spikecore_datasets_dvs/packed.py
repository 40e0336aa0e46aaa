"""Many small recordings in one structured `.npy`, memory-mapped: how generated data are kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spikecore.errors import DatasetError
from spikecore.files import refuse_special
from spikecore_datasets_dvs.events import COLUMNS, DTYPE, Events

EVENTS, INDEX = "events.npy", "index.npy"


def write(directory: Path, recordings: Iterable[tuple[Events, int]]) -> None:
    """Keep recordings with their labels in a directory."""
    parts, starts, labels = [np.empty(0, DTYPE)], [0], []
    for events, label in recordings:
        parts.append(events.structured())
        starts.append(starts[-1] + len(events))
        labels.append(label)
    np.save(directory / EVENTS, np.concatenate(parts))
    np.save(directory / INDEX, np.array([starts, [*labels, -1]], np.int64))


class Packed:
    """The recordings of a directory: `packed[i]` and `packed.labels`."""

    def __init__(self, directory: Path) -> None:
        try:
            for name in (INDEX, EVENTS):
                refuse_special(directory / name)
            # Mapped: a file that claims more than it has is refused, where reading it would take the memory first.
            self._starts, labels = np.array(np.load(directory / INDEX, mmap_mode="r", allow_pickle=False))
            self._events = np.load(directory / EVENTS, mmap_mode="r" if self._starts[-1] else None, allow_pickle=False)
        except Exception as error:  # numpy raises what its parser of headers raises
            raise DatasetError(f"{directory}: is damaged: {error}; delete this directory") from error
        if self._events.dtype != DTYPE or len(self._events) != self._starts[-1]:
            raise DatasetError(f"{directory}: {EVENTS} and {INDEX} do not belong together; delete this directory")
        self.labels: list[int] = labels[:-1].tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Events:
        part = np.asarray(self._events[self._starts[index] : self._starts[index + 1]])
        return Events(*(np.ascontiguousarray(part[name]) for name in COLUMNS))
