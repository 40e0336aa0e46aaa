"""CIFAR-10 and CIFAR-100 in their binary version: records of labels and pixels, and no pickle.

CIFAR-10    label, 1024 × red, 1024 × green, 1024 × blue          a byte each, rows of 32
CIFAR-100   coarse label, fine label, then the same

Source: https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from spikecore.datasets import Limits, extract
from spikecore.errors import DatasetError
from spikecore.interfaces import DatasetInfo
from spikecore_datasets_vision import declarations
from spikecore_datasets_vision.dataset import Stored
from spikecore_datasets_vision.named import MOST_BYTES, NamedDataset

PIXELS = 3 * 32 * 32
MOST_MEMBERS = 1000


def read_records(path: Path, num_labels: int) -> np.ndarray:
    """uint8 `[N, num_labels + 3072]`, mapped into memory and not writable.

    Raises:
        DatasetError: the file is missing, empty, or no whole number of records.
    """
    record = num_labels + PIXELS
    try:
        size = path.stat().st_size
        if size and size % record == 0:
            return np.memmap(path, np.uint8, "r", shape=(size // record, record))
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error}") from error
    what = f"ends within a record: {size} bytes, and a record has {record}" if size else "is empty"
    raise DatasetError(f"{path}: {what}; delete it, and get the archive again")


class RecordImages:
    """The images of several files of records, one after the other.

    Args:
        paths: of the files.
        num_labels: bytes before the pixels of each record.
    """

    def __init__(self, paths: Sequence[Path], num_labels: int) -> None:
        self.paths, self.num_labels = tuple(paths), num_labels
        self._files = [read_records(path, num_labels) for path in paths]
        self._ends = np.cumsum([len(file) for file in self._files])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(self, index: np.ndarray) -> np.ndarray:
        """uint8 `[B, 3, 32, 32]`."""
        out = np.empty((len(index), PIXELS), np.uint8)
        places = np.searchsorted(self._ends, index, side="right")
        for number in np.unique(places):
            file = self._files[number]
            own = places == number
            out[own] = file[index[own] - (self._ends[number] - len(file)), self.num_labels :]
        return out.reshape(-1, 3, 32, 32)

    def path_of(self, index: int) -> Path:
        """The file that an image stands in."""
        return self.paths[int(np.searchsorted(self._ends, index, side="right"))]

    def labels(self, place: int) -> np.ndarray:
        """The labels at this byte of each record."""
        return np.concatenate([file[:, place] for file in self._files])

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "num_labels": self.num_labels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


class _CIFAR(NamedDataset):
    """Base: which files are whose, and which byte of a record is the label."""

    files: ClassVar[dict[str, tuple[str, ...]]]
    num_labels: ClassVar[int] = 1

    def unpack(self, archives: Sequence[Path], into: Path) -> None:
        num_bytes = self.info.files[0].unpacked_bytes or MOST_BYTES
        extract(archives[0], into, limits=Limits(num_bytes, MOST_MEMBERS))

    def _label(self) -> int:
        return 0

    def stored(self, name: str) -> Stored:
        directory = self.prepare()
        images = RecordImages([directory / file for file in self.files[name]], self.num_labels)
        labels = images.labels(self._label())
        return self.checked(name, images, labels, images.path_of(int(np.argmax(labels >= self.num_outputs))))


class CIFAR10(_CIFAR):
    """Small photographs in ten classes, `[3, 32, 32]`; the authors' split."""

    name: ClassVar[str] = "cifar10"
    info = declarations.CIFAR10
    files: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        "test": ("test_batch.bin",),
    }
    present: ClassVar[tuple[str, ...]] = (*files["train"], *files["test"])


class CIFAR100(_CIFAR):
    """Small photographs in a hundred classes, or in twenty groups of these, `[3, 32, 32]`; the authors' split."""

    name: ClassVar[str] = "cifar100"
    info = declarations.CIFAR100
    files: ClassVar[dict[str, tuple[str, ...]]] = {"train": ("train.bin",), "test": ("test.bin",)}
    present: ClassVar[tuple[str, ...]] = ("train.bin", "test.bin")
    num_labels: ClassVar[int] = 2

    @dataclass(frozen=True)
    class Config(NamedDataset.Config):
        """
        Args:
            labels: the hundred classes, or their twenty groups.
        """

        labels: Literal["fine", "coarse"] = "fine"

    def described(self) -> DatasetInfo:
        return type(self).info if self.config.labels == "fine" else declarations.coarse(type(self).info)

    def _label(self) -> int:
        return 1 if self.config.labels == "fine" else 0
