"""The base of datasets that others made: fetch → verify → unpack → images and labels that are as many as published."""

from __future__ import annotations

import dataclasses
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from spikecore.datasets import fetch
from spikecore.errors import DatasetError
from spikecore.interfaces import DataFile, DatasetCapabilities
from spikecore_datasets_vision.dataset import ImageDataset, Images, Stored

MOST_BYTES = 1 << 30
"""More than any of these files holds; the limit of one that declares no size."""


class NamedDataset(ImageDataset):
    """Base: `present` are there as a person unpacked them, or the archives are fetched and unpacked."""

    capabilities: ClassVar[DatasetCapabilities] = dataclasses.replace(
        ImageDataset.capabilities,
        same_samples=(*ImageDataset.capabilities.same_samples, "root"),  # of the published files, which are verified
    )
    present: ClassVar[tuple[str, ...]]
    """The files that are read."""

    @dataclass(frozen=True)
    class Config(ImageDataset.Config):
        """
        Args:
            allow_partial: take fewer or more images than were published.
        """

        allow_partial: bool = False

    def prepare(self) -> Path:
        """The directory of the files that are read."""
        return self.prepared(self.present, self.info.files, "extracted")

    def prepared(self, present: Sequence[str], files: Sequence[DataFile], into: str) -> Path:
        """The directory of some of the files.

        Args:
            present: their names, unpacked.
            files: the archives that hold them.
            into: name of the directory to unpack into, where they are not there.
        """
        root = self.directory
        if (unpacked := self._unpacked(root, present)) is not None:
            return unpacked
        extracted = root / into
        if not extracted.is_dir():
            self.unpack([self.archive(file) for file in files], extracted)
        if (unpacked := self._unpacked(extracted, present)) is None:
            raise DatasetError(
                f"{extracted}: {self._missing(extracted, present)} is missing; is this {self.info.title}? Delete this "
                "directory, and get the archives again"
            )
        return unpacked

    def archive(self, file: DataFile) -> Path:
        """An archive, fetched where it is missing, and verified."""
        return fetch(file, self.directory, manual=self.info.manual)

    def unpack(self, archives: Sequence[Path], into: Path) -> None:
        """Unpack verified archives into a directory, which exists afterwards if and only if all went well."""
        raise NotImplementedError(f"{type(self).__name__} declares no unpack")

    def _unpacked(self, top: Path, present: Sequence[str]) -> Path | None:
        """`top`, or a directory in it, that has all the files."""
        if not top.is_dir():
            return None
        places = [top, *sorted(path for path in top.iterdir() if path.is_dir() and path.name[0] != ".")]
        return next((place for place in places if all((place / name).is_file() for name in present)), None)

    def _missing(self, top: Path, present: Sequence[str]) -> str:
        names = {path.name for path in top.rglob("*")}
        return next((name for name in present if name not in names), present[0])

    def checked(self, name: str, images: Images, labels: np.ndarray, where: Path) -> Stored:
        """Images with their labels.

        Args:
            name: of the split.
            images: all of them.
            labels: as the file has them.
            where: the labels are from, for messages.

        Raises:
            DatasetError: they do not belong together, a label is unknown, or they are not as many as were published.
        """
        if len(images) != len(labels):
            raise DatasetError(f"{where}: has {len(labels)} labels for {len(images)} images; get the files again")
        labels = np.asarray(labels).astype(np.int64)
        wrong = np.flatnonzero((labels < 0) | (labels >= self.num_outputs))
        if len(wrong):
            raise DatasetError(
                f"{where}: the label of image {wrong[0]} is {labels[wrong[0]]}; there are {self.num_outputs} classes"
            )
        wanted = dict(self.info.num_samples)[name]
        if len(labels) != wanted and not self.config.allow_partial:
            raise DatasetError(
                f"{where}: the split {name} has {len(labels)} of {wanted} images: get the files again, or set "
                "allow_partial = true"
            )
        if not len(labels):
            raise DatasetError(f"{where}: holds no images for the split {name!r} of {self.name}")
        return Stored(images, labels)


def gunzip(archive: Path, target: Path, most_bytes: int | None = None) -> None:
    """Write what a gz file holds.

    Args:
        archive: the file.
        target: a new one.
        most_bytes: that it may hold; None for `MOST_BYTES`.

    Raises:
        DatasetError: it is damaged, or a bomb.
    """
    size, most_bytes = 0, MOST_BYTES if most_bytes is None else most_bytes
    try:
        with gzip.open(archive) as content, target.open("xb") as file:
            while chunk := content.read(1 << 20):
                size += len(chunk)
                if size > most_bytes:
                    raise DatasetError(f"{archive}: unpacks to more than {most_bytes} bytes; is it the right file?")
                file.write(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"{archive}: cannot be unpacked: {error}; delete it and fetch it again") from error
