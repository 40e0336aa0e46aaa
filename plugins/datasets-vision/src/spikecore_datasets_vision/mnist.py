"""MNIST and Fashion-MNIST: four idx files each.

Copies of the archives were packed anew in many places, each with a digest of its own; what they hold tells them.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from spikecore.datasets import make_directory, matches
from spikecore.errors import DatasetError
from spikecore.interfaces import DataFile
from spikecore_datasets_vision import declarations
from spikecore_datasets_vision.dataset import Stored
from spikecore_datasets_vision.idx import IdxImages, read_idx
from spikecore_datasets_vision.named import MOST_BYTES, NamedDataset, gunzip

PREFIXES = {"train": "train", "test": "t10k"}


class MNIST(NamedDataset):
    """Handwritten digits, `[1, 28, 28]`; the authors' split."""

    name: ClassVar[str] = "mnist"
    info = declarations.MNIST
    present: ClassVar[tuple[str, ...]] = tuple(file.name.removesuffix(".gz") for file in declarations.MNIST.files)
    contents: ClassVar[Mapping[str, str]] = declarations.MNIST_CONTENTS
    """MD5 of the files, unpacked."""

    def archive(self, file: DataFile) -> Path:
        path = self.directory / file.name
        if path.is_file() and not matches(path, file) and _content(path) == self.contents[path.stem]:
            return path
        return super().archive(file)

    def unpack(self, archives: Sequence[Path], into: Path) -> None:
        sizes = {file.name: file.unpacked_bytes for file in self.info.files}

        def fill(aside: Path) -> None:
            for path in archives:
                gunzip(path, aside / path.name.removesuffix(".gz"), sizes.get(path.name))

        make_directory(into, fill)

    def stored(self, name: str) -> Stored:
        prefix = PREFIXES[name]
        directory = self.prepare() if name == "train" else self._of_test()
        images = IdxImages(directory / f"{prefix}-images-idx3-ubyte")
        if images.size != self.stored_shape[1:]:
            raise DatasetError(f"{images.path}: its images are {images.size}; expected {self.stored_shape[1:]}")
        path = directory / f"{prefix}-labels-idx1-ubyte"
        labels = read_idx(path)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DatasetError(f"{path}: holds {tuple(labels.shape)} of {labels.dtype}; labels are [N] of uint8")
        return self.checked(name, images, labels, path)

    def _of_test(self) -> Path:
        """Who looks at the test images alone needs no others."""
        files = [file for file in self.info.files if file.name.startswith(PREFIXES["test"])]
        return self.prepared([file.name.removesuffix(".gz") for file in files], files, "extracted-test")


def _content(archive: Path) -> str:
    """MD5 of what a gz file holds; "" where it is damaged, or holds far more than any of these."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with gzip.open(archive) as content:
            while piece := content.read(1 << 20):
                size += len(piece)
                if size > MOST_BYTES:
                    return ""
                digest.update(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return ""
    return digest.hexdigest()


class FashionMNIST(MNIST):
    """Articles of clothing, `[1, 28, 28]`; the authors' split."""

    name: ClassVar[str] = "fashion-mnist"
    info = declarations.FASHION_MNIST
    contents: ClassVar[Mapping[str, str]] = declarations.FASHION_MNIST_CONTENTS
